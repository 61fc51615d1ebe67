import importlib.util
import logging
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import pytest
import torch

from tests import tiny, web

TOOLS = Path(__file__).resolve().parents[2] / "tools"


class Ended(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture
def tool(monkeypatch):
    """Load a tool: tool('train') is the module tools/train.py, under a unique name."""
    monkeypatch.syspath_prepend(str(TOOLS))

    def load(name: str):
        spec = importlib.util.spec_from_file_location(f"hrpose_tools_{name}", TOOLS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def command(tool, monkeypatch, capsys):
    """Run a command in this process: command(tool or its name, arguments ...).

    Restores the loggers and PyTorch's settings afterwards.
    """
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    cudnn = torch.backends.cudnn
    threads, settings = torch.get_num_threads(), (cudnn.benchmark, cudnn.deterministic)
    cv_threads = cv2.getNumThreads()
    torch.set_num_threads(1)

    def run(name, *arguments: object) -> Ended:
        module = tool(name) if isinstance(name, str) else name
        monkeypatch.setattr(sys, "argv", [module.__file__, *map(str, arguments)])
        capsys.readouterr()
        code: object = 0
        try:
            module.run(module.main)
        except SystemExit as end:
            code = end.code
        if isinstance(code, str):  # as the interpreter does
            print(code, file=sys.stderr)
            code = 1
        return Ended(code, *capsys.readouterr())

    yield run
    for handler in list(root.handlers):
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising
    torch.set_num_threads(threads)
    cv2.setNumThreads(cv_threads)
    cudnn.benchmark, cudnn.deterministic = settings


@pytest.fixture
def succeed(command):
    """Run a command as ``command`` does, and check that its exit code is 0."""

    def run(*words: object) -> Ended:
        ended = command(*words)
        assert ended.code == 0, ended
        return ended

    return run


@pytest.fixture
def site(monkeypatch):
    """Run a local web server, and let downloads repeat failed requests without a pause."""
    monkeypatch.setattr("lib.utils.download.time.sleep", lambda _: None)
    with web.serving() as site:
        yield site


@pytest.fixture
def root(tmp_path):
    """Write three training and two test images, and return their folder."""
    return tiny.write_coco_sets(tmp_path / "data")
