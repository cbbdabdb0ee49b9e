"""The program ``streamq``, apart from the package: it is here before anything else is imported."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]

_SIGINT_EXIT = 130


def main() -> int:
    """Run the command; Ctrl-C ends it without a traceback, however early it comes.

    Returns:
        The exit code, as of :func:`streamq.cli.main`.
    """
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:
        # Not by an exception: in the middle of an import others would make something else of it.
        signal.signal(signal.SIGINT, _leave)
    from streamq.cli import load

    run = load()
    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return _SIGINT_EXIT


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(_SIGINT_EXIT)
