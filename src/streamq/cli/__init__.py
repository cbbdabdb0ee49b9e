"""The ``streamq`` command: see what is configured, follow streams, serve them, and a demo."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

__all__ = ["load", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Without the program's name; by default those of the process.

    Returns:
        The exit code: 0 success, 1 the stream did not end well, 2 wrong usage, configuration or
        circumstances (told in one line on stderr), 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM.
    """
    try:
        return load()(arguments)
    except KeyboardInterrupt:
        return 130


def load() -> Callable[[Sequence[str] | None], int]:
    """Import all that the command needs, and return what runs it."""
    try:
        from ._app import run
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        return _advise
    return run


def _advise(arguments: Sequence[str] | None) -> int:
    sys.stderr.write("error: the streamq command needs: pip install 'streamq[cli]'\n")
    return 2
