"""The ``streamq`` command: shows the configuration, follows and serves streams, runs a demo.

One module for each command (``_backends``, ``_config``, ``_delete``, ``_doctor``, ``_ls``,
``_schema``, ``_serve``, ``_sweep``, ``_tail``, ``demo/``), and what they share:

* ``_app``: puts the commands together; converts failures to one line and an exit code.
* ``_terminal``: consoles, tables, one-line errors, running asynchronous work.
* ``_lookup``: finds streams and similar names. ``_completion``: values for the shell to complete.

Design: docs/design/command-line.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

__all__ = ["load", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Arguments without the program's name; by default those of the process.

    Returns:
        The exit code: 0 success, 1 the stream did not end well, 2 wrong usage, wrong configuration
        or another failure (one line on stderr), 129 SIGHUP, 130 Ctrl-C, 143 SIGTERM.
    """
    try:
        return load()(arguments)
    except KeyboardInterrupt:
        return 130


def load() -> Callable[[Sequence[str] | None], int]:
    """Import everything that the command needs, and return the function that runs it."""
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
