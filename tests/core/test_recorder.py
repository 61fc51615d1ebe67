"""Records of a run: images, history, TensorBoard and logs."""

import csv
import dataclasses

import cv2
import numpy as np
import pytest
import torch

from lib.core import sheets
from lib.core.backends import DecodingBackend
from lib.core.recorder import KINDS, Recorder
from lib.core.sheets import write_prediction_sheet
from lib.core.top_down import TopDown
from lib.core.train import Stats, train_epoch
from lib.core.validate import validate
from lib.keypoints.skeletons import COCO
from lib.utils.errors import InputError
from tests.core.runs import parts, schedule, task
from tests.poses import poses_of
from tests.utils.event_files import read_events


@pytest.fixture
def recorder(tmp_path):
    """Return a function that creates a Recorder, which is closed after the test."""
    made = []

    def make() -> Recorder:
        made.append(Recorder(tmp_path / "out", tmp_path / "log"))
        return made[-1]

    yield make
    for one in made:
        one.close()


def history(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "out" / "history.csv").read_text().splitlines()))


def stats(loss: float) -> Stats:
    return Stats(loss, 0.5, samples=8, seconds=2.0, data_seconds=0.5)


def record(run, writer: Recorder, kinds) -> None:
    """Run one epoch and one validation, with images of every batch."""
    top_down = task(run)

    def observer(phase):
        def observe(step, stats, batch, outputs):
            writer.save_images(phase, step, step, top_down.draw(batch, outputs, kinds))

        return observe

    train_epoch(top_down, run.loader, run.optimizer, schedule(run), 0, 1, observer("train"))
    validate(top_down, run.tests, 1, observer("val"))


def test_images_have_hrnets_names_and_show_every_crop(tmp_path, recorder):
    run = parts(tmp_path)
    record(run, recorder(), KINDS)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        f"{phase}_{step}_{kind}.jpg"
        for phase in ("train", "val")
        for step in (0, 1)
        for kind in KINDS
    }
    crops = cv2.imread(str(tmp_path / "out" / "train_0_gt.jpg"))
    assert crops.shape == (64 + 4, 4 * 66 + 2, 3)
    heatmaps = cv2.imread(str(tmp_path / "out" / "train_0_hm_gt.jpg"))
    assert heatmaps.shape == (4 * 16, (1 + 17) * 16, 3)
    assert crops.std() > 10 and heatmaps.std() > 10


def test_only_the_selected_images_are_written(tmp_path, recorder):
    run = parts(tmp_path)
    record(run, recorder(), ["pred"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{phase}_{step}_pred.jpg" for phase in ("train", "val") for step in (0, 1)
    }


def test_history_and_curves_contain_every_epoch(tmp_path, recorder):
    writer = recorder()
    writer.save()
    assert not (tmp_path / "out").exists()
    for epoch in range(3):
        writer.add_epoch(epoch, stats(1 / (epoch + 1)), 0.01)
        if epoch == 1:
            writer.add_scores(epoch, stats(0.7), {"AP": 0.25, "AP (M)": 0.5})
        writer.save()
    rows = history(tmp_path)
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [row["AP"] for row in rows] == ["", "0.25", ""]
    assert float(rows[1]["valid_loss"]) == 0.7 and float(rows[2]["train_loss"]) == 1 / 3
    assert cv2.imread(str(tmp_path / "out" / "curves.png")) is not None


def test_an_unknown_validation_loss_is_not_recorded(tmp_path, recorder):
    writer = recorder()
    writer.add_epoch(0, stats(1.0), 0.01)
    writer.add_scores(0, dataclasses.replace(stats(0.0), has_loss=False), {"AP": 0.25})
    writer.save()
    (row,) = history(tmp_path)
    assert "valid_loss" not in row and row["AP"] == "0.25"


def test_a_resumed_run_continues_the_history(tmp_path, recorder):
    first = recorder()
    for epoch in range(3):
        first.add_epoch(epoch, stats(epoch + 1), 0.01)
    first.add_scores(2, stats(1), {"AP": 0.5})
    first.save()
    second = recorder()
    second.resume(2)
    second.add_epoch(2, stats(9), 0.01)
    second.save()
    rows = history(tmp_path)
    assert [float(row["epoch"]) for row in rows] == [0, 1, 2]
    assert [float(row["train_loss"]) for row in rows] == [1, 2, 9]


def test_scores_of_an_unknown_epoch_are_not_in_the_history(tmp_path, recorder):
    writer = recorder()
    writer.add_epoch(0, stats(1), 0.01)
    writer.add_scores(3, stats(1), {"AP": 0.5})
    writer.save()
    assert "AP" not in (tmp_path / "out" / "history.csv").read_text()


def test_a_new_run_replaces_the_history(tmp_path, recorder):
    first = recorder()
    first.add_epoch(0, stats(1), 0.01)
    first.save()
    second = recorder()
    second.resume(0)
    second.add_epoch(0, stats(5), 0.01)
    second.save()
    assert (tmp_path / "out" / "history.csv").read_text().count("\n") == 2


def test_an_unreadable_history_is_an_error_that_names_it(tmp_path, recorder):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "history.csv").write_text("epoch,lr\n0,fast\n")
    with pytest.raises(InputError, match=r"history\.csv: not a training history"):
        recorder().resume(1)


def test_tensorboard_has_curves_scores_a_table_and_images(tmp_path, recorder, caplog):
    run = parts(tmp_path)
    writer = recorder()
    with caplog.at_level("INFO"):
        writer.log_train_step(2, 1, 10, stats(0.25), 0.01)
        writer.log_test_step(3, 5, stats(0.5))
    writer.add_scores(2, stats(0.125), {"AP": 0.25, "AP (M)": 0.5})
    record(run, writer, ["gt_pred"])
    writer.close()
    events = read_events(next((tmp_path / "log").iterdir()))
    scalars = {(e.step, v.tag): v.simple_value for e in events for v in e.summary.value}
    assert scalars[21, "train_loss"] == 0.25
    assert scalars[21, "train_acc"] == 0.5
    assert scalars[21, "learning_rate"] == pytest.approx(0.01)
    assert scalars[21, "samples_per_second"] == 4 and scalars[21, "data_wait_share"] == 0.25
    assert scalars[2, "valid_loss"] == 0.125
    assert scalars[2, "valid/AP"] == 0.25 and scalars[2, "valid/AP_M"] == 0.5
    values = {v.tag: v for e in events for v in e.summary.value}
    text = next(v for tag, v in values.items() if "table" in tag).tensor.string_val[0].decode()
    assert "|AP|AP (M)|" in text and "|0.250|0.500|" in text
    picture = values["train_gt_pred"].image
    assert picture.width > 64 and picture.encoded_image_string[:4] == b"\x89PNG"
    # The format is that of the HRNet repository.
    assert "Epoch: [2][1/10]\tTime 2.000s\tSpeed 4.0 samples/s\tData 0.500s\tLoss 0.25000" in (
        caplog.text
    )
    assert "Test: [3/5]\tTime 2.000s" in caplog.text


def test_several_outputs_and_unannotated_people_can_be_drawn(tmp_path):
    run = parts(tmp_path)
    batch = next(iter(run.tests))
    batch["visible"].zero_()
    outputs = [torch.rand(4, 17, 16, 16, requires_grad=True) for _ in range(2)]
    drawn = task(run).draw(batch, outputs, KINDS)
    assert set(drawn) == set(KINDS)
    assert (np.abs(drawn["gt"].astype(int) - drawn["pred"]) > 60).mean() > 0.02


def test_decoded_keypoints_are_drawn(tmp_path):
    run = parts(tmp_path)
    batch = next(iter(run.tests))
    backend = DecodingBackend(lambda crops: (batch["joints"], batch["visible"]), run.codec)
    drawn = TopDown(backend, COCO, run.data.crop).draw(
        batch, backend.outputs(batch["image"]), KINDS
    )
    assert set(drawn) == {"gt", "pred", "hm_gt"}
    np.testing.assert_array_equal(drawn["gt"], drawn["pred"])


def test_without_a_loss_none_is_logged(tmp_path, recorder, caplog):
    writer = recorder()
    unseen = dataclasses.replace(stats(0.5), has_loss=False)
    with caplog.at_level("INFO"):
        writer.log_test_step(3, 5, unseen)
    assert caplog.text.rstrip().endswith("Data 0.500s")
    writer.add_scores(0, unseen, {"AP": 0.25})
    writer.close()
    events = read_events(next((tmp_path / "log").iterdir()))
    tags = {value.tag for event in events for value in event.summary.value}
    assert "valid/AP" in tags and not tags & {"valid_loss", "valid_acc"}


def test_a_sheet_shows_skeletons_over_whole_images(tmp_path, monkeypatch):
    run = parts(tmp_path)
    table = run.data.table
    poses = poses_of(table, np.concatenate([table.joints, table.visible[..., None]], axis=2))
    images = []
    monkeypatch.setattr(sheets, "IMAGE_HEIGHT", 120)
    for scores in (1, 0):
        poses.scores = table.visible * scores
        path = tmp_path / f"{scores}.jpg"
        write_prediction_sheet(run.data, poses, path)
        images.append(cv2.imread(str(path)).astype(int))
    assert images[0].shape == (120 + 4, 3 * 162 + 2, 3)  # the aspect ratio of the images
    assert (np.abs(images[0] - images[1]) > 60).mean() > 0.02
    monkeypatch.setattr(sheets, "IMAGE_COUNT", 2)
    write_prediction_sheet(run.data, poses, tmp_path / "few.jpg")
    assert cv2.imread(str(tmp_path / "few.jpg")).shape == (124, 2 * 162 + 2, 3)
