"""A window that shows frames as they are processed, and a counter of frames per second."""

import os
import subprocess
import sys
import time
from collections import deque

import cv2

from lib.media.video import Frame
from lib.utils.errors import InputError

TITLE = "HRPose"
MAX_SIZE = (1280, 720)  # larger frames are scaled down to this size
END_KEYS = (ord("q"), ord("Q"), 27)  # 27 is Esc
MEASURED_FRAMES = 30


def check_windows() -> None:
    """Check that OpenCV can open a window.

    Raises:
        InputError: OpenCV was built without window support, or there is no display.
    """
    if not cv2.currentUIFramework():
        raise InputError(
            "--show: this build of OpenCV cannot open windows; run: pip uninstall -y "
            "opencv-python-headless; pip install opencv-python"
        )
    # Without a display, Qt aborts the process, so try in a subprocess.
    code = f"import cv2; cv2.namedWindow({TITLE!r})"
    if subprocess.run([sys.executable, "-c", code], capture_output=True).returncode:
        display = os.environ.get("DISPLAY")
        raise InputError(
            "--show: cannot open a window: "
            + (f"display {display} cannot be reached" if display else "DISPLAY is not set")
            + "; run the command on a machine with a screen, connect with ssh -X, or omit --show"
        )


class Window:
    """Window that shows frames. It opens at the first frame."""

    def show(self, frame: Frame) -> bool:
        """Show a frame; an image stays until a key is pressed.

        Returns:
            False if q or Esc was pressed or the window was closed.
        """
        image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
        zoom = min(limit / side for limit, side in zip(MAX_SIZE, image.shape[1::-1], strict=True))
        if zoom < 1:
            size = [max(1, round(side * zoom)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        cv2.imshow(TITLE, image)
        while True:
            key = cv2.waitKey(1 if frame.rate else 50)  # milliseconds; the rate of an image is 0
            if key in END_KEYS or not self._is_open():
                return False
            if frame.rate or key >= 0:
                return True

    def _is_open(self) -> bool:
        try:
            return cv2.getWindowProperty(TITLE, cv2.WND_PROP_VISIBLE) > 0
        except cv2.error:  # Qt raises it if the last window has been closed
            return False

    def close(self) -> None:
        """Close the window."""
        cv2.destroyAllWindows()


class FrameRate:
    """Counter of frames per second, averaged over the last ``MEASURED_FRAMES`` frames."""

    def __init__(self) -> None:
        self._times = deque([time.monotonic()], maxlen=MEASURED_FRAMES + 1)

    def __call__(self) -> float:
        """Count one more frame and return the frames per second."""
        self._times.append(time.monotonic())
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)
