"""Images, folders, patterns, videos and cameras."""

import cv2
import numpy as np
import pytest

from lib.media import video
from lib.media.video import Item, VideoFile, count_frames, find_items, numeric_names, read_frames
from lib.utils.errors import InputError
from tests import tiny


@pytest.fixture(autouse=True)
def quiet():
    level = cv2.utils.logging.getLogLevel()
    video.silence_opencv()
    yield
    cv2.utils.logging.setLogLevel(level)


def gray_frame(number: int) -> np.ndarray:
    """Return a uniformly gray frame (48, 64, 3); the brightness rises with the number."""
    return np.full((48, 64, 3), 20 + 8 * number, np.uint8)


def write_video(path, frames: int = 20, codec: str = "mp4v"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (64, 48))
    noise = np.random.default_rng(0).integers(0, 99, (48, 64, 3), np.uint8)
    for _ in range(frames):
        writer.write(noise)
    writer.release()
    return path


def find(*inputs):
    problems = []
    return find_items(map(str, inputs), problems.append), problems


def read(*inputs, **options):
    items, problems = find(*inputs)
    return list(read_frames(items, problems.append, **options)), problems


def test_files_folders_patterns_and_cameras_are_found(tmp_path):
    for name in ("b.jpg", "a.PNG", "c.txt", ".hidden.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "d.mp4").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.PNG").touch()
    items, problems = find(tmp_path, tmp_path / "s*" / "*", tmp_path / "c.txt", "0", "rtsp://x/y")
    assert [(item.name, item.kind) for item in items] == [
        ("a.PNG", "image"),
        ("b.jpg", "image"),
        ("d.mp4", "video"),
        ("a_2.PNG", "image"),
        ("c.txt", "image"),
        ("camera0", "camera"),
        ("camerartsp_x_y", "camera"),
    ]
    assert not problems
    assert count_frames(items) is None


def test_a_missing_input_is_reported_and_the_rest_is_used(tmp_path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "empty").mkdir()
    items, problems = find(tmp_path / "none.jpg", tmp_path / "*.png", tmp_path / "empty", tmp_path)
    assert [item.name for item in items] == ["a.jpg"]
    for problem, part in zip(problems, ("none.jpg: there is no", "no image", "empty"), strict=True):
        assert part in problem


def test_numeric_file_names_are_image_ids():
    def items(*names):
        return [Item(name, name, "image") for name in names]

    assert numeric_names(items("000785.jpg", "12.png")) == {"000785.jpg": 785, "12.png": 12}
    assert numeric_names(items("785.jpg", "0785.jpg")) == {}
    assert numeric_names(items("785.jpg", "a.jpg")) == {}
    assert numeric_names([Item("1.mp4", "1.mp4", "video")]) == {}


def test_a_written_video_has_the_same_frames_and_rate(tmp_path):
    path = tmp_path / "a.mp4"
    writer = VideoFile(path, 12.5, (64, 48))
    for number in range(10):
        frame = gray_frame(number)
        frame[:24, :, 0] = 250
        writer.write(frame)
    writer.write(np.zeros((96, 128, 3), np.uint8))  # is resized
    assert not path.exists()
    writer.close()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    frames, problems = read(path)
    assert not problems and count_frames([frames[0].item]) == 11
    assert [frame.number for frame in frames] == list(range(11))
    assert {frame.rate for frame in frames} == {12.5}
    for number, frame in enumerate(frames[:10]):
        assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
        assert abs(frame.image[36, 32].astype(int) - (20 + 8 * number)).max() < 8
        assert frame.image[12, 32, 0] > 200 > frame.image[12, 32, 2]


@pytest.mark.parametrize(
    ("rate", "max_rate", "numbers"),
    [
        (10, 10, list(range(20))),
        (10, 40, list(range(20))),
        (10, 5, list(range(0, 20, 2))),
        (10, 4, [0, 3, 5, 8, 10, 13, 15, 18]),
        (10, 0.6, [0, 17]),
        (29.97, 29.97, list(range(20))),
        (29.97, 9.99, list(range(0, 20, 3))),
    ],
)
def test_the_frame_rate_is_limited(tmp_path, rate, max_rate, numbers):
    writer = VideoFile(tmp_path / "a.mp4", rate, (64, 48))
    for number in range(20):
        writer.write(gray_frame(number))
    writer.close()
    frames, problems = read(tmp_path / "a.mp4", max_rate=max_rate)
    assert [frame.number for frame in frames] == numbers and not problems
    assert count_frames([frames[0].item], max_rate) == len(numbers)
    for frame in frames:
        assert frame.rate == pytest.approx(rate)
        assert frame.output_rate == pytest.approx(min(rate, max_rate))
        np.testing.assert_allclose(frame.image[20, 20], 20 + 8 * frame.number, atol=8)


def test_a_video_that_cannot_be_written_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(InputError, match=r"a\.abc: OpenCV cannot write a video of 64 x 48"):
        VideoFile(tmp_path / "a.abc", 10, (64, 48))
    assert not list(tmp_path.iterdir())


def test_a_truncated_video_is_reported_and_its_frames_are_kept(tmp_path):
    whole = write_video(tmp_path / "a.avi", codec="MJPG").read_bytes()
    (tmp_path / "a.avi").write_bytes(whole[: len(whole) // 2])
    lost = write_video(tmp_path / "b.mp4").read_bytes()
    (tmp_path / "b.mp4").write_bytes(lost[: len(lost) // 2])
    (tmp_path / "c.mp4").touch()
    cv2.imwrite(str(tmp_path / "d.png"), gray_frame(0))
    frames, problems = read(tmp_path)
    assert 3 < len(frames) - 1 < 18 and frames[-1].item.name == "d.png"
    assert len(problems) == 3
    assert f"a.avi: the video ends after {len(frames) - 1} of 20 frames" in problems[0]
    assert "b.mp4: OpenCV cannot read this video" in problems[1]
    assert "c.mp4: the video file is empty" in problems[2]


def test_a_missing_camera_is_reported():
    frames, problems = read("97")
    assert not frames and len(problems) == 1 and "97: cannot open this camera" in problems[0]


class Camera:
    """A camera that stops after three frames."""

    def __init__(self, path) -> None:
        assert path == 0
        self.left = 3

    def isOpened(self):
        return True

    def get(self, key):
        return 0.0

    def read(self):
        self.left -= 1
        return self.left >= 0, gray_frame(self.left)

    def release(self):
        pass


def test_a_camera_without_a_rate_uses_the_default_rate(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    frames, problems = read("0")
    assert [frame.number for frame in frames] == [0, 1, 2]
    assert {frame.rate for frame in frames} == {video.DEFAULT_RATE}
    assert len(problems) == 1 and "stopped after 3 frames" in problems[0]


def test_unusual_images_are_read_or_reported(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    for name, content in {
        "1x1.png": image[:1, :1],
        "alpha.png": np.dstack([image, image[..., 0]]),
        "deep.png": image.astype(np.uint16) * 257,
        "gray.png": image[..., 0],
        "plain.png": image,
        "wide.png": np.zeros((2, 20000, 3), np.uint8),
        "wider.png": np.zeros((1, 33000, 3), np.uint8),
    }.items():
        cv2.imwrite(str(tmp_path / name), content)
    (tmp_path / "cut.png").write_bytes((tmp_path / "plain.png").read_bytes()[:200])
    (tmp_path / "empty.jpg").touch()
    tiny.write_huge_png(tmp_path / "huge.png")
    (tmp_path / "text.jpg").write_text("no picture")
    frames, problems = read(tmp_path)
    found = {frame.item.name: frame.image for frame in frames}
    shapes = {name: image.shape for name, image in found.items()}
    assert shapes == {
        **dict.fromkeys(("alpha.png", "deep.png", "gray.png", "plain.png"), (12, 16, 3)),
        "1x1.png": (1, 1, 3),
        "wide.png": (2, 20000, 3),
    }
    for name in ("alpha.png", "deep.png", "plain.png"):
        np.testing.assert_array_equal(found[name], image[..., ::-1])
    for name in ("cut.png", "empty.jpg", "huge.png", "text.jpg", "wider.png"):
        assert sum(name in problem for problem in problems) == 1
    assert len(problems) == 5


def test_cmyk_images_keep_their_colors(tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    pillow.new("RGB", (16, 12), (200, 40, 90)).convert("CMYK").save(tmp_path / "a.jpg")
    (frame,), _ = read(tmp_path / "a.jpg")
    np.testing.assert_allclose(frame.image[6, 8], (200, 40, 90), atol=6)
