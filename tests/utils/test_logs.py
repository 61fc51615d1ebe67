"""Output folders and logging."""

import errno
import logging
import os
import re

import pytest

from lib.config.default import default_config
from lib.utils.errors import InputError
from lib.utils.logs import experiment_folders, markdown_table, progress, start_log


@pytest.fixture(autouse=True)
def logs():
    """Restore the root logger after each test."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    yield
    for handler in list(root.handlers):
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


def test_folders_are_those_of_hrnet(tmp_path):
    cfg = default_config()
    cfg.OUTPUT_DIR, cfg.LOG_DIR = str(tmp_path / "output"), str(tmp_path / "log")
    cfg.DATASET.DATASET = "coco"
    output, log = experiment_folders(cfg, "somewhere/w32_lr1e-3.yaml")
    assert output == tmp_path / "output/coco/pose_hrnet/w32_lr1e-3"
    assert log.parent == tmp_path / "log/coco/pose_hrnet"
    assert re.fullmatch(r"w32_lr1e-3_\d{4}(-\d\d){3,5}", log.name)
    cfg.EXPERIMENT = "srpose_{name}"
    assert experiment_folders(cfg, "w32.yaml")[0].name == "srpose_w32"


def test_messages_go_to_the_console_and_the_file_once(tmp_path, capsys):
    for _ in range(2):
        path = start_log(tmp_path, "w32", "train")
    assert re.fullmatch(r"w32_\d{4}(-\d\d){3,5}_train\.log", path.name)
    logging.getLogger("lib.x").info("=> %d people", 3)
    assert capsys.readouterr().out == "=> 3 people\n"
    assert re.fullmatch(r"\d{4}-\S+ \S+ => 3 people\n", path.read_text())


def test_the_configuration_only_goes_to_the_file(tmp_path, capsys):
    path = start_log(tmp_path, "w32", "train")
    logging.getLogger("config").info("SEED: 0")
    assert capsys.readouterr().out == ""
    assert path.read_text().endswith("SEED: 0\n")


def test_an_unwritable_log_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"none/w32_.*_train\.log: cannot write: No such file"):
        start_log(tmp_path / "none", "w32", "train")


def test_errors_of_the_log_are_ignored(tmp_path, capsys, monkeypatch):
    start_log(tmp_path, "w32", "train")
    handler = next(h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler))

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(handler, "flush", lambda: full(None))
    logging.getLogger().info("hello")
    monkeypatch.undo()
    output = capsys.readouterr()
    assert output.out == "hello\n" and output.err == ""


def test_without_a_terminal_progress_prints_nothing(capsys):
    assert list(progress(iter("abc"), 3, "Test")) == ["a", "b", "c"]
    output = capsys.readouterr()
    assert output.out == output.err == ""


def test_scores_are_a_markdown_table_of_one_row():
    assert markdown_table(["AP", "AR"], [0.5, 0.25], "pose_hrnet").splitlines() == [
        "| Arch | AP | AR |",
        "|---|---|---|",
        "| pose_hrnet | 0.500 | 0.250 |",
    ]


def test_control_characters_are_escaped_on_the_console_and_in_the_file(tmp_path, capsys):
    path = start_log(tmp_path, "w32", "train")
    logging.getLogger("lib.x").info("a\x1b[31m.jpg\tis\nred\r")
    expected = "a\\x1b[31m.jpg\tis\nred\\r\n"
    assert capsys.readouterr().out == expected and path.read_text().endswith(expected)
