"""``streamq ls``: lists streams with the state of each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Annotated, TypedDict

import typer
from rich.text import Text

from streamq._errors import CapabilityError, CorruptRecordError, StreamNotFoundError
from streamq._events import SealState, shown
from streamq._settings import Settings, load_settings
from streamq.driver import ChunkQueue, StreamInfo
from streamq.opening._open import describe, open_queue, stream_id

from ._completion import stream_names
from ._lookup import listed, location, missing_database
from ._names import Encoded, named
from ._terminal import Table, one_line, run_async, show_json, show_notice, show_table, stdout

_MAX_LISTED = 50_000
_AT_ONCE = 20
_STYLES = {SealState.END.name: "green", SealState.ERROR.name: "red", "unknown": "yellow"}
_UNKNOWN = "unknown"
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


class StreamFacts(TypedDict):
    """Facts about one stream; ``None`` for facts that the backend cannot provide."""

    name: str
    state: str
    attempt: int | None
    offset: int | None
    records: int | None
    size_bytes: int | None
    expires_in_seconds: float | None
    error_type: str | None
    message: str | None


def ls(
    prefix: Annotated[
        str,
        typer.Argument(
            metavar="[PREFIX]",
            help="Only streams whose name starts with this.",
            autocompletion=stream_names,
            show_default=False,
        ),
    ] = "",
    tenant: Annotated[
        str | None, typer.Option(help="Tenant of the streams.", show_default="STREAMQ_TENANT")
    ] = None,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Also show the number of records, and errors.")
    ] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="Show at most N streams.")
    ] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")] = False,
    encoded: Encoded = False,
) -> int:
    """List streams by name, with the state of each.

    Shows OPEN or the ending; the newest attempt; the number of events; the stored bytes; the time
    until the stream expires (0 s: it waits for `streamq sweep`). A name with a character that
    cannot be seen is shown percent-encoded, as --encoded takes it; --json has every name as it is.

    \b
    Examples:
      streamq ls
      streamq ls poem- --long
      streamq ls --json | jq -r '.streams[] | select(.state == "OPEN").name'
    """
    settings = load_settings() if tenant is None else load_settings(tenant=tenant)
    stream_id("any", settings)  # raises if the tenant is invalid
    prefix = named(prefix, encoded=encoded)

    async def work() -> int:
        infos: list[StreamInfo] = []
        facts: list[StreamFacts] = []
        if missing_database(settings) is None:
            async with open_queue(settings) as queue:
                infos = await listed(queue, settings.tenant, prefix, _MAX_LISTED)
                infos.sort(key=lambda info: info.stream.name)
                facts = await _describe_all(queue, infos[:limit], settings)
        is_complete = len(infos) <= limit
        if as_json:
            head = {"backend": settings.backend, "tenant": settings.tenant}
            show_json({**head, "streams": facts, "is_complete": is_complete})
            return 0
        if facts:
            _show(facts, long=long)
        else:
            which = f" starts with {prefix!r}" if prefix else ""
            show_notice(f"no stream{which} ({location(settings)})")
        if not is_complete:
            more = f"{len(infos) - limit:,}" + ("" if len(infos) < _MAX_LISTED else " or more")
            show_notice(f"{more} others are not shown; give a PREFIX, or a larger --limit")
        return 0

    return run_async(work)


async def _describe_all(
    queue: ChunkQueue, infos: Sequence[StreamInfo], settings: Settings
) -> list[StreamFacts]:
    """Describe each stream; streams that no longer exist are left out."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def describe_one(info: StreamInfo) -> StreamFacts | None:
        left = info.expires_in
        facts = StreamFacts(
            name=info.stream.name,
            state=_UNKNOWN,
            attempt=info.attempts,
            offset=None,
            records=info.records,
            size_bytes=info.size_bytes,
            expires_in_seconds=None if left is None else left.total_seconds(),
            error_type=None,
            message=None,
        )
        async with room:
            # `streamq tail` reports these errors; here the state stays unknown.
            with contextlib.suppress(CapabilityError, CorruptRecordError):
                try:
                    status = await describe(info.stream, queue=queue, settings=settings)
                except StreamNotFoundError:
                    return None
                seal = status.seal
                facts["state"] = "OPEN" if seal is None else seal.state.name
                facts["attempt"], facts["offset"] = status.attempt, status.offset
                facts["records"], facts["size_bytes"] = status.records, status.size_bytes
                if seal is not None:
                    facts["error_type"] = seal.error_type or None
                    facts["message"] = seal.message or None
        return facts

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(describe_one(info)) for info in infos]
    return [facts for task in tasks if (facts := task.result()) is not None]


def _show(found: Sequence[StreamFacts], *, long: bool) -> None:
    table = Table()
    table.add_column("name", no_wrap=True)
    table.add_column("state")
    for title in ("attempt", "offset", "size", "expires", *(["records"] if long else [])):
        table.add_column(title, justify="right")
    if long:
        table.add_column("error", overflow="fold")
    for facts in found:
        cells = [
            _number(facts["attempt"]),
            _number(facts["offset"]),
            _size(facts["size_bytes"]),
            _time_left(facts["expires_in_seconds"]),
        ]
        if long:
            error = ": ".join(filter(None, (facts["error_type"], facts["message"])))
            cells += [_number(facts["records"]), one_line(error)]
        state = Text(facts["state"], style=_STYLES.get(facts["state"], ""))
        table.add_row(Text(shown(facts["name"])), state, *map(Text, cells))
    show_table(table, stdout(), whole=True)


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _size(value: int | None) -> str:
    if value is None:
        return "?"
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= unit:
            return f"{value / unit:.1f} {name}"
    return f"{value} B"


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return "never"
    for unit, name in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
