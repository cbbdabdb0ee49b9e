"""Shows the stream of the demo: a live panel on a terminal, plain text elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from streamq import Chunk, Event, Reset, Seal, SealState
from streamq.cli._terminal import Table, show_table
from streamq.driver import TerminalTextStream

from ._measurements import Stopwatch

_FRAMES_PER_SECOND = 15
_WIDTH = 100
_OTHER_LINES = 6
_ECHO_WIDTH = 2  # room for the "^C" of the terminal, which would otherwise break the panel
_KEPT_CHARS = 50_000
_SEAL_STYLES = {SealState.END: "green", SealState.ERROR: "red", SealState.CANCELLED: "yellow"}


class View:
    """Shows text as it arrives, without sequences that a terminal executes, except colours.

    Args:
        console: The console to print on.
        stopwatch: Has the counters to show.
    """

    def __init__(self, console: Console, stopwatch: Stopwatch) -> None:
        self.console = console
        self._stopwatch = stopwatch
        self._text = TerminalTextStream()
        self._in_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._end_line()

    def say(self, *parts: str | tuple[str, str], style: str = "") -> None:
        """Print a notice on a line of its own."""
        self._end_line()
        self.console.print(Text.assemble(*parts, style=style), soft_wrap=True)

    def show(self, event: Event) -> None:
        """Show an event; the stopwatch has already counted it."""
        if isinstance(event, Chunk):
            self._write(str(event.value))
        elif isinstance(event, Reset):
            self.say(reset_notice(event), style="yellow")
        elif isinstance(event, Seal):
            self._end_line()

    def table(self, rows: Sequence[tuple[str, str]]) -> None:
        """Print a summary."""
        table = Table(show_header=False)
        for name, value in rows:
            table.add_row(Text(name, style="bold"), Text(value))
        self.say()
        show_table(table, self.console)

    def _write(self, text: str) -> None:
        self.console.file.write(self._text.feed(text))
        self.console.file.flush()
        self._in_line = bool(text) and not text.endswith("\n")

    def _end_line(self) -> None:
        self.console.file.write(self._text.end())
        if self._in_line:
            self.console.file.write("\n")
            self._in_line = False


class LiveView(View):
    """Shows the text in a panel that grows while it arrives."""

    def __init__(self, console: Console, stopwatch: Stopwatch) -> None:
        super().__init__(console, stopwatch)
        self._parts: deque[str] = deque()
        self._chars = 0
        self._seal: Seal | None = None
        self._state = ("live", "cyan")
        self._live: Live | None = None

    def __enter__(self) -> Self:
        self._live = Live(
            self, console=self.console, refresh_per_second=_FRAMES_PER_SECOND, transient=True
        )
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if kind is not None and self._seal is None:
            self._state = ("interrupted", "yellow")
        self._stop()

    def show(self, event: Event) -> None:
        if isinstance(event, Chunk):
            self._keep(str(event.value))
        elif isinstance(event, Reset):
            self.say(reset_notice(event), style="yellow")
            self._text.end()
            self._parts.clear()
            self._chars = 0
        elif isinstance(event, Seal):
            self._seal = event
            self._state = (event.state.name, _SEAL_STYLES[event.state])
            self._stop()

    def _keep(self, sent: str) -> None:
        text = self._text.feed(sent)
        self._parts.append(text)
        self._chars += len(text)
        while self._chars - len(self._parts[0]) > _KEPT_CHARS:
            self._chars -= len(self._parts.popleft())

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
            self.console.print(self)  # the final panel, with all of the text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the panel; while it is live, only the end of the text that fits."""
        watch = self._stopwatch
        width = max(min(options.max_width - _ECHO_WIDTH, _WIDTH), 20)
        height = max(options.size.height - _OTHER_LINES, 3)
        text = "".join(self._parts.copy())
        if self._live is not None:
            text = text[-width * height :]
        wrapped = Text.from_ansi(text.rstrip("\n")).wrap(console, max(width - 4, 1))
        lines = wrapped[-height:] if self._live is not None else list(wrapped)
        state, style = self._state
        facts = [f"{watch.chunks} chunks", f"{watch.elapsed_seconds:.1f} s"]
        if rate := watch.chunks_per_second:
            facts.insert(1, f"{rate:.1f}/s")
        yield Panel(
            Text("\n").join(lines),
            title=f"attempt {max(watch.attempt, 1)}: {state}",
            subtitle=", ".join(facts),
            title_align="left",
            subtitle_align="right",
            border_style=style,
            width=width,
        )


def make_view(console: Console, stopwatch: Stopwatch) -> View:
    """Return the view that suits the console."""
    is_capable = console.is_terminal and not console.is_dumb_terminal
    return (LiveView if is_capable else View)(console, stopwatch)


def reset_notice(reset: Reset) -> str:
    """Return a notice that explains a reset."""
    return (
        f"-- attempt {reset.attempt - 1} failed; Temporal starts attempt {reset.attempt}, and "
        "every reader gets a Reset: the text starts over"
    )
