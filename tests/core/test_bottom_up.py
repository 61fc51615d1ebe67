"""The bottom-up task: from perfect outputs back to everybody, and from a batch to a loss."""

import numpy as np
import pytest
import torch

from lib.config import load_config
from lib.core import build_task
from lib.core.backends import Backend, build_backend, network_backend
from lib.core.bottom_up import BottomUp
from lib.core.codecs import build_codec
from lib.core.inference import Predictor
from lib.core.optim import build_optimizer
from lib.core.train import train_epoch
from lib.core.validate import validate
from lib.dataset import build_dataset
from lib.dataset.bottom_up import scene_size
from lib.dataset.loading import test_loader as build_test_loader
from lib.dataset.loading import train_loader
from lib.keypoints.geometry import Crop, transform_points
from lib.keypoints.skeletons import COCO
from lib.models import build_model
from lib.utils.errors import InputError
from tests import tiny


def experiment(folder, images: int, **sections):
    """Write a data set of ``images`` images and load a tiny bottom-up experiment on it."""
    tiny.write_coco(folder / "data", images=images)
    return load_config(tiny.scenes(folder / "scenes.yaml", folder / "data", **sections))


class PerfectBackend(Backend):
    """Outputs heatmaps and tags made from the annotations of one image after the other."""

    def __init__(self, dataset, codec) -> None:
        self.device = torch.device("cpu")
        self.codec = codec
        self.outputs_are_decoded = False
        self._dataset = dataset
        self._number = 0

    def train(self, mode: bool) -> None:
        pass

    def outputs(self, crops):
        table, height, width = self._dataset.table, *crops.shape[2:]
        rows = np.flatnonzero(table.image == self._number)
        self._number += 1
        (_, _), center, scale = scene_size(tiny.WIDTH, tiny.HEIGHT, self._dataset.size)
        matrix = Crop((width, height)).matrix(center, scale)
        heatmaps, tags = torch.zeros(2, 1, 17, height, width).unbind(0)
        for person, row in enumerate(rows):
            for joint in np.flatnonzero(table.visible[row]):
                x, y = transform_points(table.joints[row, joint], matrix).astype(int)
                heatmaps[0, joint, y, x] = 1
                tags[0, joint, y, x] = 3.0 * person
        return heatmaps, tags[..., None]


def test_perfect_outputs_find_everybody(tmp_path):
    cfg = experiment(tmp_path, images=3)
    dataset = build_dataset(cfg, "val2017", is_train=False)
    backend = PerfectBackend(dataset, build_codec(cfg, COCO))
    task = build_task(cfg, backend)
    assert isinstance(task, BottomUp) and not task.uses_boxes
    result = validate(task, build_test_loader(dataset, 1, 0))
    assert len(result.poses) == 6 and not result.stats.has_loss
    values, score = dataset.source.evaluate(result.poses, str(tmp_path / "out"))
    assert score == values["AP"] > 0.95
    assert len(dataset.source.rows_to_draw(result.poses)) == 6


def test_people_in_broken_images_count_as_not_found(tmp_path):
    cfg = experiment(tmp_path, images=3)
    dataset = build_dataset(cfg, "val2017", is_train=False)
    (tmp_path / "data" / "images" / "val2017" / "000000000003.jpg").write_bytes(b"")
    task = build_task(cfg, PerfectBackend(dataset, build_codec(cfg, COCO)))
    result = validate(task, build_test_loader(dataset, 1, 0, max_broken=0.5))
    assert len(result.poses) == 4
    values, _ = dataset.source.evaluate(result.poses, str(tmp_path / "out"))
    assert 0.6 < values["AR"] < 0.67


def test_nobody_found_scores_zero(tmp_path):
    cfg = experiment(tmp_path, images=2)
    dataset = build_dataset(cfg, "val2017", is_train=False)
    network = build_model(cfg)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    backend = network_backend(cfg, network, build_codec(cfg, COCO))
    result = validate(build_task(cfg, backend), build_test_loader(dataset, 1, 0))
    assert len(result.poses) == 0
    assert dataset.source.evaluate(result.poses, str(tmp_path / "out"))[1] == 0


@pytest.mark.parametrize("head", ["higher", "heatmap", "sr"])
def test_training_lowers_the_loss_and_draws(tmp_path, head):
    size = [128, 128] if head == "sr" else [32, 32]
    cfg = experiment(tmp_path, images=4, MODEL={"HEAD": head, "HEATMAP_SIZE": size})
    torch.manual_seed(0)
    network = build_model(cfg)
    task = build_task(cfg, network_backend(cfg, network, build_codec(cfg, COCO)))
    batches = train_loader(build_dataset(cfg, "val2017", is_train=True), 2, workers=0)
    optimizer, seen = build_optimizer(cfg, network), []

    def observe(step, stats, batch, outputs):
        kinds = ("gt", "pred", "hm_gt", "hm_pred", "gt_pred")
        seen.append(task.draw(batch, outputs, kinds).keys())

    losses = [  # of epoch 0 each time, with the same augmentation
        train_epoch(task, batches, optimizer, lambda *_: 0.01, 0, observe=observe).loss
        for _ in range(10)
    ]
    assert losses[-1] < losses[0]
    assert set(seen[0]) == {"gt", "pred", "hm_gt", "hm_pred", "gt_pred"}


@pytest.mark.parametrize("flip_test", [False, True])
def test_scales_and_flip_test_are_averaged_at_the_size_of_scale_1(tmp_path, flip_test):
    test = {"SCALE_FACTOR": [0.5, 1, 2], "FLIP_TEST": flip_test}
    cfg = experiment(tmp_path, images=1, TEST=test)
    torch.manual_seed(0)
    network = tiny.randomize_weights(build_model(cfg))
    backend = build_backend(cfg, COCO, network.state_dict())
    task = build_task(cfg, backend)
    task.eval()
    [batch] = build_test_loader(build_dataset(cfg, "val2017", is_train=False), 1, 0)
    heatmaps, tags = task.forward(batch)
    width, height = batch["base_size"].tolist()
    assert heatmaps.shape == (1, 17, height, width)
    assert tags.shape == (1, 17, height, width, 1 + flip_test)
    each = [
        backend.codec.enlarge(
            backend.codec.merge(backend.outputs(batch[f"image{n}"])), (height, width)
        )
        for n in range(3)
    ]
    torch.testing.assert_close(heatmaps, sum(one[0] for one in each) / 3)
    torch.testing.assert_close(tags, each[1][1])


def test_a_bottom_up_predictor_refuses_boxes(tmp_path):
    cfg = experiment(tmp_path, images=1)
    torch.manual_seed(0)
    weights = tiny.randomize_weights(build_model(cfg)).state_dict()
    predictor = Predictor(cfg, weights, device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    one, _ = predictor([image, image[:60]])
    assert (one.row == -1).all() and np.isfinite(one.box).all()
    again = predictor(image)
    np.testing.assert_array_equal(again.keypoints, one.keypoints)
    with pytest.raises(InputError, match="finds people by itself"):
        predictor(image, [[0, 0, 50, 50]])
    with pytest.raises(InputError, match="finds people by itself"):
        Predictor(cfg, weights, device="cpu", detector=lambda images: [])
