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
from types import FrameType
from typing import Any, TextIO

from rich.box import ROUNDED
from rich.console import Console
from rich.table import Table
from rich.text import Text

from streamq._errors import ConfigurationError
from streamq._events import Seal

# As the shell counts: 128 and the number of the signal.
SIGHUP_EXIT = 129
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
    try:
        stderr().print(line, soft_wrap=True)
    except OSError:  # nobody can be told, but the exit code still tells
        forget(sys.stderr)


def ending(seal: Seal) -> str:
    """Return how a stream ended, in words."""
    return ": ".join(filter(None, (seal.state.name, seal.error_type, seal.message)))


def show_json(data: object) -> None:
    """Print data as JSON on stdout."""
    sys.stdout.write(json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def show_table(table: Table, console: Console, *, whole: bool = False) -> None:
    """Print a table: fitted to a terminal, else plain aligned text whose lines are never broken.

    Args:
        table: What to print.
        console: Where to.
        whole: Print plain text on a terminal too if it is too narrow, instead of shortening.
    """
    fits = not whole or table.__rich_measure__(console, console.options).maximum < console.width
    if console.is_terminal and fits:
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

    Ctrl-C, SIGTERM and SIGHUP cancel it, so that it can put everything away. A second one ends the
    process at once: what it has started has guardians.

    Args:
        work: Makes the coroutine.
        on_sigterm: Exit code after SIGTERM.
    """
    codes = {
        signal.SIGINT: SIGINT_EXIT,
        signal.SIGTERM: on_sigterm,
        signal.SIGHUP: SIGHUP_EXIT,
    }
    signals: list[int] = []
    task: asyncio.Task[int] | None = None

    # Not a handler of the loop: that could not end a process whose loop is busy or stuck.
    def interrupt(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        if len(signals) > 1:
            os._exit(128 + number)
        if task is not None:
            task.get_loop().call_soon_threadsafe(task.cancel)

    async def guarded() -> int:
        nonlocal task
        task = asyncio.current_task()
        if signals:
            raise asyncio.CancelledError
        return await work()

    previous = {}
    for number in codes:
        # What the one who started us has turned off, as nohup does, stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # only the main thread can
                previous[number] = signal.signal(number, interrupt)
    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        if signals:
            return codes[signal.Signals(signals[0])]
        raise
    finally:
        if not signals:  # else the process is about to end, and a second signal is still welcome
            for number, handler in previous.items():
                signal.signal(number, handler)


def forget(stream: TextIO | None) -> None:
    """Keep the interpreter from complaining at its end about what could not be written."""
    if stream is not None:  # it is when the process was started without
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
