"""Box NMS and OKS-NMS: published results, equality of all versions, and unusual inputs."""

import logging
from pathlib import Path

import numpy as np
import pytest

from lib.nms import backend, box_nms, gpu, oks_iou, oks_nms, oks_nms_groups, soft_oks_nms

GOLDEN = Path(__file__).parents[1] / "golden" / "ops"
THRESHOLDS = [0.3, 0.5, 0.7, 0.9]
COCO_SIGMAS = (
    np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
)
BUILT = backend.find_compiled()
needs_build = pytest.mark.skipif(BUILT is None, reason="lib.nms is not built: make")


@pytest.fixture(params=["numpy", pytest.param("cython", marks=needs_build)])
def version(request, monkeypatch):
    """Run a test with NumPy and, if it is built, with Cython."""
    monkeypatch.setattr(backend, "compiled", BUILT if request.param == "cython" else None)
    return request.param


@pytest.fixture(scope="module")
def people():
    with np.load(GOLDEN / "oks_nms.npz") as arrays:
        return dict(arrays)


def numpy_and_cython(monkeypatch, function, *arguments, **keywords):
    """Return the results of NumPy and Cython."""
    results = []
    for compiled in (None, BUILT):
        monkeypatch.setattr(backend, "compiled", compiled)
        results.append(function(*arguments, **keywords))
    return results


def random_people(seed, count, spread=60.0):
    """Return keypoints, scores (with ties), areas and groups; some people are duplicates."""
    rng = np.random.default_rng(seed)
    keypoints = rng.normal(0, 6, (count, 17, 3)) + rng.uniform(0, spread, (count, 1, 3))
    copies = rng.integers(0, count, count // 5)
    keypoints[rng.integers(0, count, count // 5)] = keypoints[copies]
    keypoints[:, :, 2] = rng.random((count, 17))
    scores = rng.integers(0, 12, count) / 12
    return keypoints, scores, rng.uniform(1e3, 2e4, count), rng.integers(-3, 9, count)


def random_dets(seed, count):
    """Return boxes in whole pixels, with many equal overlaps and scores."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 100, (count, 2))
    size = rng.integers(10, 40, (count, 2))
    return np.hstack([corner, corner + size, rng.integers(0, 9, (count, 1)) / 9])


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_box_nms_keeps_what_the_published_code_keeps(version, threshold):
    with np.load(GOLDEN / "box_nms.npz") as arrays:
        kept = box_nms(arrays["dets"], threshold)
        np.testing.assert_array_equal(kept, arrays[f"py_{threshold}"])
        np.testing.assert_array_equal(kept, arrays[f"cpu_{threshold}"])
    assert kept.dtype == np.int64


@pytest.mark.parametrize(("name", "in_vis_thre"), [("iou", None), ("iou_vis", 0.2)])
def test_oks_iou_matches_the_published_code(version, people, name, in_vis_thre):
    for row, expected in enumerate(people[name]):
        group = people["group"] == people["group"][row]
        found = oks_iou(
            people["keypoints"][row],
            people["keypoints"][group],
            people["area"][row],
            people["area"][group],
            COCO_SIGMAS,
            in_vis_thre,
        )
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize(("name", "function"), [("nms", oks_nms), ("soft", soft_oks_nms)])
def test_oks_nms_keeps_what_the_published_code_keeps(version, people, name, function, threshold):
    for number, padded in enumerate(people[f"{name}_{threshold}"]):
        rows = people["group"] == number
        given = (people[key][rows] for key in ("keypoints", "score", "area"))
        kept = function(*given, threshold, COCO_SIGMAS)
        np.testing.assert_array_equal(kept, padded[padded >= 0])
        assert kept.dtype == np.int64


@needs_build
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("count", [0, 1, 2, 63, 64, 65, 500])
def test_compiled_box_nms_agrees_with_numpy(monkeypatch, count, threshold):
    expected, found = numpy_and_cython(monkeypatch, box_nms, random_dets(count, count), threshold)
    np.testing.assert_array_equal(found, expected)


@needs_build
def test_compiled_box_nms_agrees_with_numpy_on_nan_and_infinity(monkeypatch):
    dets = random_dets(0, 400)
    rng = np.random.default_rng(1)
    odd = rng.choice([np.nan, np.inf, -np.inf, 1e30, -1e30], 60)
    dets[rng.integers(0, 400, 60), rng.integers(0, 5, 60)] = odd
    expected, found = numpy_and_cython(monkeypatch, box_nms, dets, 0.3)
    np.testing.assert_array_equal(found, expected)


@needs_build
@pytest.mark.parametrize("function", [oks_nms, soft_oks_nms])
@pytest.mark.parametrize("in_vis_thre", [None, 0.5, 2.0])
@pytest.mark.parametrize("threshold", [0.2, 0.9])
@pytest.mark.parametrize("count", [0, 1, 2, 80])
def test_compiled_oks_nms_agrees_with_numpy(monkeypatch, count, threshold, in_vis_thre, function):
    keypoints, scores, areas, _ = random_people(count, count)
    given = (keypoints, scores, areas, threshold, COCO_SIGMAS, in_vis_thre)
    expected, found = numpy_and_cython(monkeypatch, function, *given)
    np.testing.assert_array_equal(found, expected)


@needs_build
@pytest.mark.parametrize("function", [oks_nms, soft_oks_nms])
def test_compiled_oks_nms_agrees_with_numpy_on_nan_and_infinity(monkeypatch, function):
    keypoints, scores, areas, _ = random_people(3, 120)
    keypoints[::7, 4, 0] = scores[::5] = areas[2] = np.nan
    keypoints[::11, :, 1] = scores[3] = np.inf
    scores[6], areas[::13] = -np.inf, 0
    expected, found = numpy_and_cython(
        monkeypatch, function, keypoints, scores, areas, 0.5, COCO_SIGMAS
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("in_vis_thre", [None, 0.4])
def test_groups_give_the_same_rows_as_a_loop_over_images(version, in_vis_thre, soft):
    keypoints, scores, areas, groups = random_people(5, 300)
    scores[::17] = np.nan
    function = soft_oks_nms if soft else oks_nms
    expected = []
    for image in np.unique(groups):
        rows = np.flatnonzero(groups == image)
        kept = function(keypoints[rows], scores[rows], areas[rows], 0.5, COCO_SIGMAS, in_vis_thre)
        expected.append(rows[kept])
    found = oks_nms_groups(
        keypoints, scores, areas, groups, 0.5, COCO_SIGMAS, in_vis_thre, soft=soft
    )
    np.testing.assert_array_equal(found, np.sort(np.concatenate(expected)))
    assert 0 < len(found) < 300


def test_an_overlap_equal_to_the_threshold_is_kept(version):
    halves = [[0, 0, 9, 9, 0.9], [0, 0, 9, 4, 0.8]]  # 50 of 100 pixels
    assert box_nms(halves, 0.5).tolist() == [0, 1]
    assert box_nms(halves, 0.4999).tolist() == [0]
    twins = np.ones((2, 17, 3))
    assert oks_nms(twins, [0.9, 0.8], [100, 100], 1.0, COCO_SIGMAS).tolist() == [0, 1]
    assert oks_nms(twins, [0.9, 0.8], [100, 100], 0.9999, COCO_SIGMAS).tolist() == [0]


def test_the_later_of_equal_scores_comes_first(version):
    apart = np.array([[x, 0, x + 5, 5, 0.5] for x in (0, 50, 100)])
    assert box_nms(apart, 0.5).tolist() == [2, 1, 0]
    far = np.zeros((3, 17, 3)) + np.array([0, 1e4, 2e4])[:, None, None]
    for function in (oks_nms, soft_oks_nms):
        assert function(far, [1, 1, 1], [100] * 3, 0.5, COCO_SIGMAS).tolist() == [2, 1, 0]


def test_a_nan_score_is_the_lowest_and_a_nan_overlap_suppresses_nothing(version):
    dets = np.array([[0, 0, 9, 9, np.nan], [0, 0, 9, 9, 0.1], [0, np.nan, 9, 9, 0.9]])
    assert box_nms(dets, 0.5).tolist() == [2, 1]
    keypoints = np.zeros((3, 17, 3))
    keypoints[2] = np.nan
    given = (keypoints, [np.nan, 0.1, 0.9], [100, 100, 100], 0.5, COCO_SIGMAS)
    assert oks_nms(*given).tolist() == [2, 1]
    assert soft_oks_nms(*given).tolist() == [2, 1, 0]


def test_only_the_scores_of_the_other_person_count(version):
    person, other = np.zeros((17, 3)), np.zeros((1, 17, 3))
    other[0, :5, 2] = 1
    other[0, 5:, 0] = 1e4
    area = (person, other, 100.0, [100.0], COCO_SIGMAS)
    assert oks_iou(*area, in_vis_thre=0.5).tolist() == [1.0]
    assert oks_iou(*area, in_vis_thre=1.0).tolist() == [0.0]


def test_soft_nms_keeps_at_most_twenty_people_per_image(version):
    keypoints, scores, areas, _ = random_people(7, 50)
    assert len(soft_oks_nms(keypoints, scores, areas, 0.5, COCO_SIGMAS)) == 20
    groups = np.repeat([4, 2], [30, 20])
    kept = oks_nms_groups(keypoints, scores, areas, groups, 0.5, COCO_SIGMAS, soft=True)
    assert (kept < 30).sum() == 20 and (kept >= 30).sum() == 20


def test_empty_input_gives_an_empty_int64_array(version):
    results = [
        box_nms(np.zeros((0, 5)), 0.5),
        box_nms([], 0.5),
        oks_nms([], [], [], 0.5, COCO_SIGMAS),
        soft_oks_nms(np.zeros((0, 17, 3)), [], [], 0.5, COCO_SIGMAS),
        oks_nms_groups([], [], [], [], 0.5, COCO_SIGMAS),
    ]
    assert all(kept.shape == (0,) and kept.dtype == np.int64 for kept in results)
    assert oks_iou(np.zeros((17, 3)), [], 1.0, [], COCO_SIGMAS).shape == (0,)


def test_read_only_float32_and_strided_input_works_and_is_not_modified(version):
    keypoints, scores, areas, groups = random_people(8, 40)
    small = keypoints.astype(np.float32)
    small.setflags(write=False)
    before = scores.copy()
    found = oks_nms_groups(small, scores, areas, groups, 0.5, COCO_SIGMAS, soft=True)
    strided = np.asfortranarray(small)
    again = oks_nms_groups(strided, scores, areas, groups, 0.5, COCO_SIGMAS, soft=True)
    np.testing.assert_array_equal(found, again)
    np.testing.assert_array_equal(scores, before)


PEOPLE = (np.zeros((2, 17, 3)), np.zeros(2), np.ones(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: box_nms(np.zeros((3, 4)), 0.5), r"dets has shape \(3, 4\); it must be \(N, 5\)"),
        (lambda: box_nms([["a"] * 5], 0.5), "dets has dtype .* real numbers"),
        (lambda: box_nms(np.zeros((1, 5)), np.nan), "threshold is nan"),
        (lambda: box_nms(np.zeros((1, 5)), 0.5, "gpu"), "device is 'gpu'; it must be"),
        (lambda: oks_nms(np.zeros((2, 51)), *PEOPLE[1:], 0.5, COCO_SIGMAS), r"\(N, 17, 3\)"),
        (lambda: oks_nms(PEOPLE[0], np.zeros(3), PEOPLE[2], 0.5, COCO_SIGMAS), r"scores .* \(2\)"),
        (lambda: oks_nms(*PEOPLE[:2], [1, -2], 0.5, COCO_SIGMAS), r"areas\[1\] is -2"),
        (lambda: oks_nms(*PEOPLE, -0.5, COCO_SIGMAS), "threshold is -0.5"),
        (lambda: oks_nms(*PEOPLE, 0.5, np.zeros(17)), "sigmas .* above 0"),
        (lambda: soft_oks_nms(*PEOPLE, 0.0, COCO_SIGMAS), "threshold is 0.0; .* above 0"),
        (lambda: oks_nms_groups(*PEOPLE, [1], 0.5, COCO_SIGMAS), r"groups has shape \(1,\)"),
        (lambda: oks_nms_groups(*PEOPLE, [1.0, 2.0], 0.5, COCO_SIGMAS), "groups has dtype float64"),
        (lambda: oks_iou(PEOPLE[0][0], np.zeros((2, 51)), 1.0, [1, 1], COCO_SIGMAS), "others has"),
        (lambda: oks_iou(np.zeros((16, 3)), *PEOPLE[::2], 1.0, COCO_SIGMAS), "areas has shape"),
        (lambda: oks_iou(np.zeros((16, 3)), PEOPLE[0], 1.0, PEOPLE[2], COCO_SIGMAS), "person has"),
    ],
)
def test_an_invalid_argument_is_named_with_what_is_expected(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_a_gpu_cuda_falls_back_to_the_cpu_silently(monkeypatch, caplog):
    monkeypatch.setattr(gpu, "is_available", lambda index=0: False)
    monkeypatch.setattr(backend, "_warned", True)
    dets = random_dets(0, 1200)
    with caplog.at_level(logging.INFO):
        for device in ("cuda", "cuda:3"):
            np.testing.assert_array_equal(box_nms(dets, 0.5, device), box_nms(dets, 0.5))
    assert not caplog.records


def test_a_cuda_error_is_raised_with_its_message(monkeypatch):
    class Failing:
        def nms_box_keep(self, *_):
            return 2

        def nms_error_text(self, error):
            return b"out of memory"

    monkeypatch.setattr(gpu, "is_available", lambda index=0: True)
    monkeypatch.setattr(gpu, "load_library", Failing)
    dets = random_dets(0, 1200)
    with pytest.raises(gpu.CudaError, match="1200 boxes on cuda:1: CUDA error 2, out of memory"):
        box_nms(dets, 0.5, "cuda:1")


@pytest.mark.skipif(not gpu.is_available(), reason="no GPU, or lib.nms was built without nvcc")
@pytest.mark.parametrize("count", [1, 64, 65, 10_000])
def test_gpu_box_nms_agrees_with_the_cpu(count):
    dets = random_dets(count, count)
    for threshold in (0.0, 0.5, 0.9):
        np.testing.assert_array_equal(
            box_nms(dets, threshold, "cuda"), box_nms(dets, threshold, "cpu")
        )
