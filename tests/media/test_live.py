"""The window of --show, with OpenCV's window functions replaced, and the measured frame rate."""

import subprocess
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lib.media import live
from lib.media.live import FrameRate, Window, check_windows
from lib.media.video import Frame, Item
from lib.utils.errors import InputError


def frame(rate: float = 0.0, size=(48, 64)) -> Frame:
    item = Item("a", "a", "video" if rate else "image")
    return Frame(item, np.zeros((*size, 3), np.uint8), 0, rate)


@pytest.fixture
def screen(monkeypatch):
    """Replace OpenCV's windows: ``keys`` are pressed in turn, ``shown`` are the images."""
    screen = SimpleNamespace(keys=[], shown=[], visible=1.0)
    monkeypatch.setattr(cv2, "imshow", lambda title, image: screen.shown.append(image))
    monkeypatch.setattr(cv2, "waitKey", lambda delay: screen.keys.pop(0))
    monkeypatch.setattr(cv2, "getWindowProperty", lambda title, key: screen.visible)
    return screen


@pytest.mark.parametrize(
    ("rate", "keys", "continues"),
    [
        (25, [-1], True),
        (25, [ord("x")], True),
        (25, [ord("q")], False),
        (0, [-1, -1, ord("n")], True),
        (0, [-1, 27], False),
    ],
)
def test_a_video_continues_an_image_waits_for_a_key_and_q_or_esc_ends(
    screen, rate, keys, continues
):
    screen.keys = keys
    assert Window().show(frame(rate)) == continues
    assert not screen.keys and len(screen.shown) == 1


def test_closing_the_window_ends_the_run(screen, monkeypatch):
    screen.keys, screen.visible = [-1], 0.0
    assert not Window().show(frame())

    def raise_error(*arguments):
        raise cv2.error("NULL guiReceiver")

    monkeypatch.setattr(cv2, "getWindowProperty", raise_error)
    screen.keys = [-1]
    assert not Window().show(frame(25))


def test_frames_are_shown_in_bgr_and_large_ones_are_scaled_down(screen):
    large = frame(25, size=(3000, 2000))
    large.image[:] = (200, 100, 50)
    screen.keys = [-1]
    Window().show(large)
    assert screen.shown[0].shape == (720, 480, 3)
    assert screen.shown[0][9, 9].tolist() == [50, 100, 200]
    assert large.image.shape == (3000, 2000, 3)


@pytest.mark.parametrize(
    ("framework", "code", "display", "message"),
    [
        ("", 0, None, "cannot open windows; run: pip uninstall -y opencv-python-headless; pip"),
        ("QT", -6, None, "cannot open a window: DISPLAY is not set"),
        ("QT", -6, ":7", "cannot open a window: display :7 cannot be reached"),
        ("QT", 0, ":7", None),
    ],
)
def test_without_window_support_or_a_display_the_error_says_what_to_do(
    monkeypatch, framework, code, display, message
):
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: framework)
    ended = SimpleNamespace(returncode=code)
    monkeypatch.setattr(subprocess, "run", lambda *words, **options: ended)
    monkeypatch.delenv("DISPLAY", raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    if message is None:
        check_windows()
    else:
        with pytest.raises(InputError, match=message):
            check_windows()


def test_the_frame_rate_is_averaged_over_the_last_frames(monkeypatch):
    now = [10.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    rate = FrameRate()
    now[0] += 0.5
    assert rate() == pytest.approx(2)
    for _ in range(live.MEASURED_FRAMES):
        now[0] += 0.1
        last = rate()
    assert last == pytest.approx(10)
