"""Signals are noted and end a run after its step."""

import os
import signal

import pytest

from lib.utils import signals


@pytest.mark.parametrize("name", signals.NAMES)
def test_a_deferred_signal_is_recorded(name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    with signals.deferred():
        assert signals.received() is None
        os.kill(os.getpid(), number)
        assert signals.received() == number
        with pytest.raises(signals.Stopped, match=name) as stop:
            signals.check()
        assert stop.value.exit_code == 128 + number
    assert signals.received() is None and signal.getsignal(number) == before


def test_a_second_ctrl_c_ends_the_run_at_once():
    with pytest.raises(KeyboardInterrupt), signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
