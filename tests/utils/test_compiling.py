"""Compilation of networks: with the backend "eager", which needs no compiler."""

import pytest
import torch
from torch import nn

from lib.utils import compiling
from lib.utils.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture
def eager(monkeypatch):
    """Replace the compiler by PyTorch itself; yields the options that were given."""
    given = []
    compile_with = torch.compile

    def eagerly(function, options=None):
        given.append(options)
        return compile_with(function, backend="eager")

    monkeypatch.setattr(torch, "compile", eagerly)
    yield given
    torch.compiler.reset()


def test_a_network_compiled_in_place_keeps_its_state_dict_and_outputs(eager):
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    x, names = torch.randn(2, 3), list(network.state_dict())
    expected = network(x)
    compiling.compile_in_place(network, [CPU], "TRAIN.COMPILE")
    assert list(network.state_dict()) == names
    torch.testing.assert_close(network(x), expected)


def test_a_network_is_compiled_for_inference(eager):
    network, x = nn.Linear(3, 3), torch.randn(2, 3)
    with torch.inference_mode():
        found = compiling.compile_for_inference(network, [CPU], "TEST.COMPILE")(x)
        torch.testing.assert_close(found, network(x))
    assert eager[-1] == {"freezing": True}


def test_on_a_gpu_only_the_first_size_uses_cuda_graphs(monkeypatch):
    """A stand-in for torch.compile writes all outputs to the same memory, as CUDA graphs do."""
    memory, runs = torch.zeros(8, 1), []

    def compile_with(function, dynamic=None, options=None):
        def run(x):
            runs.append((len(x), options == compiling.CUDA_GRAPHS))
            return memory[: len(x)].copy_(function(x))

        return run

    monkeypatch.setattr(compiling, "check_compiler", lambda *_: None)
    monkeypatch.setattr(torch, "compile", compile_with)
    run = compiling.compile_for_inference(nn.Identity(), [torch.device("cuda")], "TEST.COMPILE")
    first = run(torch.ones(4, 1))
    for size in (4, 3, 4, 8):
        run(torch.full((size, 1), 7.0))
    assert runs == [(4, True), (4, True), (3, False), (4, True), (8, False)]
    assert first.tolist() == [[1], [1], [1], [1]]


def test_a_missing_compiler_is_one_line_that_names_the_setting(monkeypatch):
    def fail(function, **_):
        def run(x):
            raise RuntimeError("No working C++ compiler found\nand a traceback")

        return run

    monkeypatch.setattr(torch, "compile", fail)
    with pytest.raises(InputError, match=r"TRAIN\.COMPILE: .*\(No working C\+\+.*found\)") as error:
        compiling.compile_in_place(nn.Linear(1, 1), [CPU], "TRAIN.COMPILE")
    assert "\n" not in str(error.value)


def test_several_devices_are_refused():
    with pytest.raises(InputError, match=r"TEST\.COMPILE: works on one device"):
        compiling.compile_for_inference(nn.Linear(1, 1), [CPU, CPU], "TEST.COMPILE")


def test_pytorch_knows_the_compile_options():
    known = torch._inductor.list_options()
    assert set(compiling.CUDA_GRAPHS) <= set(known) and "freezing" in known


def test_only_errors_of_the_compiler_are_translated():
    error = torch._dynamo.exc.BackendCompilerFailed("inductor", ValueError("no\nway"), None)
    assert "TEST.COMPILE" in str(compiling.compiler_error(error)) and "\n" not in str(
        compiling.compiler_error(error)
    )
    assert compiling.compiler_error(RuntimeError("other")) is None
