"""``streamq tail``: prints a stream as it arrives."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import enum
import os
import shlex
import sys
import time
from typing import Annotated, TextIO

import typer

from streamq._errors import (
    BackendUnavailableError,
    ConfigurationError,
    IdleTimeoutError,
    StreamNotFoundError,
)
from streamq._events import Chunk, Event, Gap, Reset, Seal, SealState, StreamId
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.calling._reads import Reads
from streamq.driver import START, ChunkQueue
from streamq.driver_parts._terminal_text import TerminalTextStream
from streamq.opening._gateway import open_gateway
from streamq.opening._open import open_queue, open_reader, stream_id
from streamq.opening._read_story import last_attempt_cursor
from streamq.over_http._address import is_gateway_url
from streamq.reading._reader import StreamReader
from streamq.records._values import Encoding

from ._completion import beginnings, stream_names
from ._gateway_token import TokenFile, gateway_token, refuse_token_file
from ._lookup import missing_database, not_found
from ._names import Encoded, argument_for, named
from ._terminal import ending, escaped_json, json_text, run_async, show_notice

_LONGEST_WAIT_SECONDS = 5.0
_FILE_POLL_SECONDS = 0.1
_ADVICE = "--wait SECONDS waits for it"


class Attempts(enum.StrEnum):
    """Which stored attempts are printed."""

    ALL = "all"
    LAST = "last"


def tail(
    stream: Annotated[
        str,
        typer.Argument(
            metavar="STREAM",
            help="Name of the stream, within the tenant; or its address on a gateway.",
            autocompletion=stream_names,
        ),
    ],
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="beginning|last|tail|CURSOR",
            help="Where to begin: 'last' is the latest value, 'tail' new events only.",
            autocompletion=beginnings,
        ),
    ] = "beginning",
    attempts: Annotated[
        Attempts,
        typer.Option(help="'last' leaves out stored attempts that a later one has made void."),
    ] = Attempts.ALL,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print every event as one line of JSON with its cursor.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow/--no-follow",
            "-f",
            help="Print until the stream ends, or only what is stored now.",
        ),
    ] = True,
    wait: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="Wait this long for the stream to exist."),
    ] = 0.0,
    raw: Annotated[
        bool,
        typer.Option("--raw", help="Print everything as it was sent, also what terminals execute."),
    ] = False,
    encoded: Encoded = False,
    token_file: TokenFile = None,
) -> int:
    """Print a stream as it arrives, until it ends.

    Text is printed as it is, except that sequences which a terminal executes are shown as \\x1b and
    the like; colours pass. Bytes are treated alike on a terminal, and pass unchanged to a file or a
    pipe. Other values are printed as one line of JSON each. Notices go to stderr. The exit code
    is 0 if the stream ended well (or has not ended yet, with --no-follow), 1 if it ended with an
    error or was cancelled, 2 if it cannot be read.

    An address (https://..., as a browser shows it) is read through the gateway, without settings of
    a backend. The output is the same, and so are the cursors.

    \b
    Examples:
      streamq tail my-stream
      streamq tail my-stream --from tail --wait 60
      streamq tail my-stream --attempts last --no-follow
      streamq tail my-stream --json --no-follow | jq -r 'select(.event == "chunk").value'
      streamq tail https://streams.example.org/events/my-stream --token-file token.txt
    """
    if attempts is Attempts.LAST and from_ != "beginning":
        raise ConfigurationError(
            f"--attempts last begins with the last attempt, and --from says {from_[:40]!r}; give "
            "one of both"
        )
    settings = load_settings()
    is_remote = is_gateway_url(stream) and not encoded
    name = stream if is_remote else named(stream, encoded=encoded)
    again = shlex.quote(name) if is_remote else argument_for(name)
    printer = _JsonPrinter() if as_json else _TextPrinter(raw=raw, again=again)

    async def work() -> int:
        if is_remote:
            token = await asyncio.to_thread(gateway_token, token_file, settings)
            waiting = _Waiting(wait)
            opening = open_gateway(name, token=token, settings=settings)
        else:
            refuse_token_file(token_file)
            identity = stream_id(name, settings)
            waiting = _Waiting(wait)
            if not await waiting.for_database(settings, identity):
                raise await not_found(identity, settings, None, _ADVICE)
            opening = open_queue(settings)
        async with opening as queue:
            identity = stream_id(name, settings, queue)
            await waiting.for_stream(queue, identity)
            # A stream that did not exist when the command started is new as a whole.
            start = "beginning" if waiting.is_new and from_ == "tail" else from_
            try:
                if attempts is Attempts.LAST:
                    start = await last_attempt_cursor(identity, queue=queue, settings=settings)
                reader = await open_reader(
                    identity,
                    from_=start,
                    queue=queue,
                    settings=settings,
                    must_exist=True,
                    require=["replay"],  # otherwise this would take records away from the reader
                )
            except StreamNotFoundError as exc:
                raise await not_found(identity, settings, queue, _ADVICE) from exc
            async with reader:
                try:
                    seal = await _print_all(reader, printer, follow=follow)
                except (asyncio.CancelledError, IdleTimeoutError, BackendUnavailableError):
                    printer.stopped(reader)
                    raise
        printer.ended(seal, identity)
        return 0 if seal is None or seal.state is SealState.END else 1

    return run_async(work)


class _Waiting:
    """Waits until a stream exists, for a limited time."""

    def __init__(self, seconds: float) -> None:
        self.is_new = False
        """Whether the stream was created while this waited."""
        self._seconds = seconds
        self._until: float | None = None

    async def for_database(self, settings: Settings, stream: StreamId) -> bool:
        """Wait for the file that stores all streams, which only a writer creates."""
        while missing_database(settings) is not None:
            if not self._seconds or self._left(stream) <= 0:
                return False
            self.is_new = True
            await asyncio.sleep(_FILE_POLL_SECONDS)
        return True

    async def for_stream(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Wait for the first record of the stream."""
        if not self._seconds:
            return
        with contextlib.suppress(StreamNotFoundError):
            await calling.describe(queue, stream)
            return
        reads = Reads(queue, stream)
        while (left := self._left(stream)) > 0:
            max_wait = min(left, _LONGEST_WAIT_SECONDS)
            if await reads.read(START, max_records=1, max_bytes=1, max_wait=max_wait):
                self.is_new = True
                return

    def _left(self, stream: StreamId) -> float:
        if self._until is None:
            self._until = time.monotonic() + self._seconds
            show_notice(f"waiting up to {self._seconds:g} s for stream {stream}")
        return self._until - time.monotonic()


async def _print_all(
    reader: StreamReader, printer: _TextPrinter | _JsonPrinter, *, follow: bool
) -> Seal | None:
    if follow:
        async for event in reader:
            printer.show(event, reader)
        return reader.seal
    while batch := await reader.read_batch(max_events=1, max_wait=0):
        printer.show(batch[0], reader)
    return reader.seal


class _TextPrinter:
    """Prints chunks on stdout, and everything else as notices on stderr.

    Args:
        raw: Print chunks unchanged; otherwise what a terminal would execute is escaped.
        again: The argument that names the stream, for a shell.
    """

    def __init__(self, *, raw: bool, again: str) -> None:
        self._raw = raw
        self._again = again
        self._text = TerminalTextStream()
        self._in_line = False
        self._chunks = self._bytes = self._attempt = 0

    def show(self, event: Event, reader: StreamReader) -> None:
        self._attempt = event.attempt
        if isinstance(event, Chunk):
            self._chunks += 1
            self._bytes += len(event.data)
            self._write(event)
        elif isinstance(event, Reset):
            self._chunks = self._bytes = 0
            self._notice(f"attempt {event.attempt} starts over: the text above is no longer valid")
        elif isinstance(event, Gap):
            self._notice(f"events {event.first} to {event.offset} are no longer stored")

    def ended(self, seal: Seal | None, stream: StreamId) -> None:
        counts = f"{self._chunks} chunks, {self._bytes} bytes, attempt {self._attempt}"
        if seal is None:
            self._notice(f"open so far: {counts}")
        elif seal.state is SealState.END:
            self._notice(f"END: {counts}", "green")
        else:
            self._notice(f"{ending(seal)} (after {counts})", "red")

    def stopped(self, reader: StreamReader) -> None:
        """Show on a terminal how to continue after an interruption."""
        if sys.stderr.isatty():
            self._notice(f"continue with: streamq tail {self._again} --from {reader.cursor}")

    def _write(self, chunk: Chunk) -> None:
        out = sys.stdout
        data, encoding = printed(chunk)
        if self._raw or (encoding is Encoding.BYTES and not out.isatty()):
            out.write(self._text.end())
            out.flush()
            out.buffer.write(data)
            out.buffer.flush()
        elif encoding is Encoding.JSON:
            out.write(self._text.end() + escaped_json(data.decode("utf-8", "replace")))
        else:
            out.write(self._text.feed(data))
        if encoding is Encoding.JSON:
            out.write("\n")
            self._in_line = False
        elif data:
            self._in_line = not data.endswith(b"\n")
        out.flush()

    def _notice(self, message: str, style: str = "") -> None:
        sys.stdout.write(self._text.end())
        if self._in_line and (sys.stdout.isatty() or _is_one_file(sys.stdout, sys.stderr)):
            sys.stdout.write("\n")
        sys.stdout.flush()
        self._in_line = False
        show_notice(message, f"dim {style}".strip())


def printed(chunk: Chunk) -> tuple[bytes, Encoding]:
    """Return what a chunk is printed as: text, bytes, or JSON, which is a line of its own.

    A payload is printed as the value that the configured converter decodes it to, and what nothing
    decodes as the JSON that describes it, as ``--json`` shows it.
    """
    if chunk.encoding is not Encoding.PAYLOAD:
        return chunk.data, chunk.encoding
    form = chunk.to_dict()
    if "base64" in form and "undecoded" not in form:
        return base64.b64decode(str(form["base64"])), Encoding.BYTES
    if isinstance(value := form.get("value"), str):
        return value.encode(), Encoding.TEXT
    shown = form["value"] if "value" in form else {"undecoded": form["undecoded"]}
    return json_text(shown).encode(), Encoding.JSON


def _is_one_file(one: TextIO, other: TextIO) -> bool:
    """Whether both streams write to the same file, as after ``2>&1``."""
    with contextlib.suppress(OSError, ValueError):
        return os.path.sameopenfile(one.fileno(), other.fileno())
    return False


class _JsonPrinter:
    """Prints every event on stdout as one line of JSON, with the cursor after it."""

    def show(self, event: Event, reader: StreamReader) -> None:
        line = json_text({**event.to_dict(), "cursor": reader.cursor})
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def ended(self, seal: Seal | None, stream: StreamId) -> None:
        """Print nothing: the seal was the last line."""

    def stopped(self, reader: StreamReader) -> None:
        """Print nothing: the last line has the cursor."""
