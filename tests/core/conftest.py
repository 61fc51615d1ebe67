import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """These networks are so small that threads only wait for each other, on busy cores for long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
