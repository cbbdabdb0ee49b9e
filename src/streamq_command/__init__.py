"""The program ``streamq``: installs its handler for Ctrl-C before it imports the package.

Design: docs/design/command-line.md.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]

_SIGINT_EXIT = 130


def main() -> int:
    """Run the command; Ctrl-C ends it without a traceback, even during imports.

    Returns:
        The exit code, as of :func:`streamq.cli.main`.
    """
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_default:
        # Not by an exception: during an import, other code could catch or convert it.
        signal.signal(signal.SIGINT, _leave)
    from streamq.cli import load

    run = load()
    if is_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run(sys.argv[1:])
    except KeyboardInterrupt:
        return _SIGINT_EXIT


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(_SIGINT_EXIT)
