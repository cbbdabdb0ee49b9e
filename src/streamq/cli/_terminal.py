"""Shared by all commands: consoles, tables, one-line errors, running asynchronous work."""

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
from typing import Any

from rich.box import ROUNDED
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from streamq._errors import ConfigurationError
from streamq._events import Seal
from streamq.driver_parts._credentials import mask_credentials
from streamq.driver_parts._terminal_text import terminal_text

from ._standard_streams import discard, flush

# The convention of the shell: 128 plus the number of the signal.
SIGHUP_EXIT = 129
SIGINT_EXIT = 130
SIGPIPE_EXIT = 141
SIGTERM_EXIT = 143

_PLAIN_WIDTH = 100_000


class TerminalConsole(Console):
    """Prints what a terminal shows, and nothing that it would execute, whatever is printed.

    Colours are those of styles. Text of others goes into a ``Text``, which is never read as markup.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(terminal_text(segment.text), segment.style)


class Table(RichTable):
    """A table whose cells are escaped before their widths are measured."""

    def add_column(self, header: RenderableType = "", *args: Any, **options: Any) -> None:
        super().add_column(_cell(header), *args, **options)

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        super().add_row(*map(_cell, cells), **options)


def _cell(cell: RenderableType | None) -> RenderableType:
    if isinstance(cell, str):
        return Text(terminal_text(cell))
    if isinstance(cell, Text):
        safe = terminal_text(cell.plain)
        return cell if safe == cell.plain else Text(safe, style=cell.style)
    return cell or ""


def stdout() -> Console:
    """Return a console for results; colours only on a terminal, and not with NO_COLOR."""
    return TerminalConsole()


def stderr() -> Console:
    """Return a console for notices and errors."""
    return TerminalConsole(stderr=True)


def show_error(message: str) -> None:
    """Print a message as one line on stderr, without secrets."""
    _show_line(("error:", "bold red"), message)


def show_warning(message: str) -> None:
    """Print a message as one line on stderr, about a danger that does not stop the command."""
    _show_line(("warning:", "bold yellow"), message)


def show_note(message: str) -> None:
    """Print a message as one line on stderr, about something that does not stop the command."""
    _show_line(("note:", "bold yellow"), message)


def show_notice(message: str, style: str = "dim") -> None:
    """Print what the command is doing as one line on stderr, marked so that it is no result."""
    stderr_line(Text(f"-- {one_line(message)}", style=style))


def one_line(message: str) -> str:
    """Return a message of any origin in one line, masked and escaped."""
    return terminal_text(mask_credentials(message), keeps_lines=False)


def _show_line(title: tuple[str, str], message: str) -> None:
    stderr_line(Text.assemble(title, " ", one_line(message)))


def stderr_line(line: Text | str) -> None:
    """Print a line on stderr, unless that cannot be written: what a command does is its results."""
    try:
        stderr().print(line, soft_wrap=True)
        flush(sys.stderr)
    except OSError:
        discard(sys.stderr)


def ending(seal: Seal) -> str:
    """Return the ending of a stream as text, in which secrets are masked."""
    return mask_credentials(
        ": ".join(filter(None, (seal.state.name, seal.error_type, seal.message)))
    )


def json_text(data: object, indent: int | None = None) -> str:
    """Return data as JSON, in which invisible characters are escaped: a terminal may get it."""
    return escaped_json(json.dumps(data, indent=indent, ensure_ascii=False))


def escaped_json(text: str) -> str:
    """Return JSON with the escapes of JSON in place of invisible characters."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def show_json(data: object) -> None:
    """Print data as JSON on stdout."""
    sys.stdout.write(json_text(data, indent=2) + "\n")


def show_table(table: RichTable, console: Console, *, whole: bool = False) -> None:
    """Print a table: fitted to a terminal, else plain aligned text whose lines are never broken.

    Args:
        table: The table.
        console: The console to print on.
        whole: On a terminal that is too narrow, print plain text instead of shortening cells.
    """
    fits = not whole or table.__rich_measure__(console, console.options).maximum < console.width
    if console.is_terminal and fits:
        table.box, table.border_style = ROUNDED, "dim"
        console.print(table)
        return
    table.box = None
    table.pad_edge = False
    table.padding = (0, 3, 0, 0)
    # Rendered separately, because rich pads every line with blanks to the width of the table.
    aside = TerminalConsole(file=io.StringIO(), width=_PLAIN_WIDTH, color_system=None)
    with aside.capture() as capture:
        aside.print(table)
    for line in capture.get().splitlines():
        console.print(Text(line.rstrip()), soft_wrap=True)


@contextlib.contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Convert a missing package to advice, for imports that a command makes when it runs.

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

    Ctrl-C, SIGTERM and SIGHUP cancel it, so that it can clean up. A second signal ends the process
    at once; guardians then end the processes that it has started.

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

    # Not a handler of the loop, which could not end a process whose loop is busy or blocked.
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
        # A signal that this process was started to ignore, as by nohup, stays ignored.
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
        if not signals:  # otherwise the process is about to end, and a second signal may hurry it
            for number, handler in previous.items():
                signal.signal(number, handler)
