"""What ends a training early, and is waited for."""

import signal
import time
from types import FrameType


class Termination:
    """Notes SIGTERM and a deadline, so that a loop can finish its step and save.

    Within `with Termination(deadline) as termination:`; after it SIGTERM does what it did before.

    Args:
      deadline: by `time.monotonic()`.
    """

    def __init__(self, deadline: float):
        self._asked, self._deadline = False, deadline

    def __enter__(self) -> "Termination":
        self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def why(self) -> str:
        """Why training should stop, empty while it should not."""
        late = "out of time" if time.monotonic() > self._deadline else ""
        return "SIGTERM" if self._asked else late

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True
