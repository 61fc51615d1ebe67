"""What a run leaves to look at."""

import csv
import dataclasses

import cv2
import numpy as np
import pytest
import torch

from lib.core.pictures import write_prediction_sheet
from lib.core.recorder import Recorder
from lib.core.train import Pass, train_epoch
from lib.core.validate import validate
from lib.utils.errors import InputError
from tests.core.runs import CPU, engine, parts, schedule
from tests.utils.event_files import read_events

KINDS = ("gt", "pred", "hm_gt", "hm_pred")


@pytest.fixture
def recorder(tmp_path):
    """recorder(parts, kinds of pictures) makes a Recorder, closed at the end."""
    made = []

    def make(run, pictures=()) -> Recorder:
        folders = (tmp_path / "out", tmp_path / "log")
        made.append(Recorder(*folders, run.codec, run.data.skeleton, pictures))
        return made[-1]

    yield make
    for one in made:
        one.close()


def passed(loss: float) -> Pass:
    return Pass(loss, 0.5, samples=8, seconds=2.0, data_seconds=0.5)


def record(run, writer: Recorder) -> None:
    train_epoch(
        *(run.model, run.loader, run.codec, run.optimizer, schedule(run), 0, CPU),
        print_freq=1,
        observe=lambda step, _, *batch: writer.batch("train", step, step, *batch),
    )
    validate(
        *(engine(run), run.tests, run.codec),
        print_freq=1,
        observe=lambda step, _, *batch: writer.batch("val", step, step, *batch),
    )


def test_pictures_have_the_originals_names_and_show_every_crop(tmp_path, recorder):
    run = parts(tmp_path)
    record(run, recorder(run, KINDS))
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


def test_only_the_pictures_asked_for_are_written(tmp_path, recorder):
    run = parts(tmp_path)
    record(run, recorder(run, ["pred"]))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{phase}_{step}_pred.jpg" for phase in ("train", "val") for step in (0, 1)
    }


def test_history_and_curves_hold_every_epoch_and_the_scores_of_those_validated(tmp_path, recorder):
    run = parts(tmp_path)
    writer = recorder(run)
    writer.save()
    assert not (tmp_path / "out").exists()
    for epoch in range(3):
        writer.epoch(epoch, passed(1 / (epoch + 1)), 0.01)
        if epoch == 1:
            writer.scores(epoch, passed(0.7), {"AP": 0.25, "AP (M)": 0.5})
        writer.save()
    with (tmp_path / "out" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [row["AP"] for row in rows] == ["", "0.25", ""]
    assert float(rows[1]["valid_loss"]) == 0.7 and float(rows[2]["train_loss"]) == 1 / 3
    assert cv2.imread(str(tmp_path / "out" / "curves.png")) is not None


def test_a_resumed_run_goes_on_with_the_history_of_the_epochs_before(tmp_path, recorder):
    run = parts(tmp_path)
    first = recorder(run)
    for epoch in range(3):
        first.epoch(epoch, passed(epoch + 1), 0.01)
    first.scores(2, passed(1), {"AP": 0.5})
    first.save()
    second = recorder(run)
    second.resume(2)
    second.epoch(2, passed(9), 0.01)
    second.save()
    with (tmp_path / "out" / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [0, 1, 2]
    assert [float(row["train_loss"]) for row in rows] == [1, 2, 9]


def test_scores_of_an_epoch_that_is_not_in_the_history_are_in_no_row(tmp_path, recorder):
    writer = recorder(parts(tmp_path))
    writer.epoch(0, passed(1), 0.01)
    writer.scores(3, passed(1), {"AP": 0.5})
    writer.save()
    assert "AP" not in (tmp_path / "out" / "history.csv").read_text()


def test_a_new_run_begins_a_new_history(tmp_path, recorder):
    run = parts(tmp_path)
    first = recorder(run)
    first.epoch(0, passed(1), 0.01)
    first.save()
    second = recorder(run)
    second.resume(0)
    second.epoch(0, passed(5), 0.01)
    second.save()
    assert (tmp_path / "out" / "history.csv").read_text().count("\n") == 2


def test_a_history_that_cannot_be_read_is_an_error_that_names_it(tmp_path, recorder):
    run = parts(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "history.csv").write_text("epoch,lr\n0,fast\n")
    with pytest.raises(InputError, match=r"history\.csv: not the history of a run"):
        recorder(run).resume(1)


def test_tensorboard_gets_curves_scores_a_table_and_pictures(tmp_path, recorder, caplog):
    run = parts(tmp_path)
    writer = recorder(run)
    with caplog.at_level("INFO"):
        writer.train_step(2, 1, 10, passed(0.25), 0.01)
        writer.test_step(3, 5, passed(0.5))
    writer.scores(2, passed(0.125), {"AP": 0.25, "AP (M)": 0.5})
    record(run, writer)
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
    # The lines are the original's.
    assert "Epoch: [2][1/10]\tTime 2.000s\tSpeed 4.0 samples/s\tData 0.500s\tLoss 0.25000" in (
        caplog.text
    )
    assert "Test: [3/5]\tTime 2.000s" in caplog.text


def test_several_outputs_and_people_without_annotation_can_be_drawn(tmp_path, recorder):
    run = parts(tmp_path)
    writer = recorder(run, KINDS)
    batch = next(iter(run.tests))
    batch["visible"].zero_()
    target = run.codec.encode(batch["joints"], batch["visible"])
    outputs = [torch.rand(4, 17, 16, 16, requires_grad=True) for _ in range(2)]
    writer.batch("val", 0, 0, batch, outputs, target)
    plain = cv2.imread(str(tmp_path / "out" / "val_0_gt.jpg")).astype(int)
    drawn = cv2.imread(str(tmp_path / "out" / "val_0_pred.jpg")).astype(int)
    assert (np.abs(plain - drawn) > 60).mean() > 0.02


def test_keypoints_without_outputs_are_drawn_and_have_no_loss(tmp_path, recorder, caplog):
    run = parts(tmp_path)
    writer = recorder(run, KINDS)
    batch = next(iter(run.tests))
    target = run.codec.encode(batch["joints"], batch["visible"])
    writer.batch("val", 0, 0, batch, None, target, batch["joints"])
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(drawn) == {"val_0_gt.jpg", "val_0_pred.jpg", "val_0_hm_gt.jpg"}
    assert drawn["val_0_gt.jpg"] == drawn["val_0_pred.jpg"]
    unseen = dataclasses.replace(passed(0.5), is_judged=False)
    with caplog.at_level("INFO"):
        writer.test_step(3, 5, unseen)
    assert caplog.text.rstrip().endswith("Data 0.500s")
    writer.scores(0, unseen, {"AP": 0.25})
    writer.close()
    events = read_events(next((tmp_path / "log").iterdir()))
    tags = {value.tag for event in events for value in event.summary.value}
    assert "valid/AP" in tags and not tags & {"valid_loss", "valid_acc"}


def test_a_sheet_shows_skeletons_over_whole_images(tmp_path):
    run = parts(tmp_path)
    table = run.data.table
    keypoints = np.concatenate([table.joints, table.visible[..., None]], axis=2)
    sheets = []
    for scores in (1, 0):
        path = tmp_path / f"{scores}.jpg"
        write_prediction_sheet(run.data, keypoints * [1, 1, scores], path, height=120)
        sheets.append(cv2.imread(str(path)).astype(int))
    assert sheets[0].shape == (120 + 4, 3 * 162 + 2, 3)  # the shape of the images: no margins
    assert (np.abs(sheets[0] - sheets[1]) > 60).mean() > 0.02
    write_prediction_sheet(run.data, keypoints, tmp_path / "few.jpg", count=2)
    assert cv2.imread(str(tmp_path / "few.jpg")).shape == (304, 2 * 402 + 2, 3)
