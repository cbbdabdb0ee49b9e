"""What every command shares: consoles, one-line errors, and running asynchronous work."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamq._errors import ConfigurationError
from streamq._events import Seal

# As the shell counts: 128 and the number of the signal.
SIGINT_EXIT = 130
SIGPIPE_EXIT = 141
SIGTERM_EXIT = 143

_PLAIN_WIDTH = 100_000


def stdout() -> Console:
    """Return a console for results; colours only on a terminal, and not with NO_COLOR."""
    return Console(highlight=False)


def stderr() -> Console:
    """Return a console for notices and errors."""
    return Console(stderr=True, highlight=False)


def show_error(message: str) -> None:
    """Print one line on stderr, whatever the message contains."""
    line = Text.assemble(("error:", "bold red"), " ", " ".join(message.split()))
    stderr().print(line, soft_wrap=True)


def ending(seal: Seal) -> str:
    """Return how a stream ended, in words."""
    return ": ".join(filter(None, (seal.state.name, seal.error_type, seal.message)))


def show_json(data: object) -> None:
    """Print data as JSON on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def show_table(table: Table, console: Console) -> None:
    """Print a table: fitted to a terminal, else plain aligned text whose lines are never broken."""
    if console.is_terminal:
        table.box, table.border_style = ROUNDED, "dim"
        console.print(table)
        return
    table.box = None
    table.pad_edge = False
    table.padding = (0, 3, 0, 0)
    # Rendered aside: rich fills up every line with blanks to the width of the table.
    aside = Console(file=io.StringIO(), width=_PLAIN_WIDTH, color_system=None)
    with aside.capture() as capture:
        aside.print(table)
    for line in capture.get().splitlines():
        console.print(Text(line.rstrip()), soft_wrap=True)


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Turn a missing package into advice; for imports that a command makes when it runs.

    Raises:
        ConfigurationError: A package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "").partition(".")[0] == "streamq":
            raise
        raise ConfigurationError(
            f"this command needs the package {exc.name!r}; run: pip install 'streamq[{extra}]'"
        ) from exc


def run_async(
    work: Callable[[], Coroutine[Any, Any, int]], *, on_sigterm: int = SIGTERM_EXIT
) -> int:
    """Run a command's coroutine and return its exit code.

    Ctrl-C and SIGTERM cancel it, so that it can put everything away.

    Args:
        work: Makes the coroutine.
        on_sigterm: Exit code after SIGTERM.

    Raises:
        KeyboardInterrupt: Ctrl-C, after everything has been put away.
    """
    was_terminated = False

    async def guarded() -> int:
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal was_terminated
            was_terminated = True
            task.cancel()

        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work()

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        if was_terminated:
            return on_sigterm
        raise


def forget_stdout() -> None:
    """Keep the interpreter from complaining at its end about what could not be written."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
