"""``streamq delete``: removes streams before they expire."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Annotated

import typer

from streamq._erase import StreamSelection, erase_selected
from streamq._errors import (
    CapabilityError,
    ConfigurationError,
    CorruptRecordError,
    StreamNotFoundError,
    StreamsLeftError,
)
from streamq._events import StreamId, shown
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue
from streamq.opening._open import describe, open_queue, retry_policy, stream_id

from ._completion import stream_names
from ._lookup import missing_database, not_found
from ._names import Encoded, named
from ._open_streams import count_open, counted, warn_after, warn_before
from ._terminal import run_async, show_notice, show_warning, stderr

_NAMED = 5
_LEFT_EXIT = 1


def delete(
    streams: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STREAM...]",
            help="Names of the streams, within the tenant.",
            autocompletion=stream_names,
            show_default=False,
        ),
    ] = None,
    workflow: Annotated[
        str | None,
        typer.Option(metavar="ID", help="All streams of this workflow, of each of its runs."),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            help="All streams whose name starts with this: `chat-7` takes `chat-77/...`, too, and "
            "`chat-7/` does not."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All streams of the tenant.")] = False,
    tenant: Annotated[
        str | None, typer.Option(help="Tenant of the streams.", show_default="STREAMQ_TENANT")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    encoded: Encoded = False,
) -> int:
    """Delete streams and their contents at once and for good.

    A stream that is not deleted disappears when it expires. The name of a deleted one can be used
    again. Stop its producer first: one that still runs goes on, and brings the stream back without
    its beginning. If one of the named streams does not exist, none is deleted. The exit code is 1
    if there are streams of the workflow, prefix or tenant again afterwards.

    \b
    Examples:
      streamq delete my-stream
      streamq delete my-stream my-other-stream --yes
      streamq delete --workflow chat-7
      streamq delete --prefix chat-7/
      streamq delete --tenant acme --all
    """
    settings = load_settings() if tenant is None else load_settings(tenant=tenant)
    stream_id("any", settings)  # raises if the tenant is invalid
    given = [bool(streams), workflow is not None, prefix is not None, everything]
    if sum(given) != 1:
        raise typer.BadParameter("give one of: names of streams, --workflow, --prefix, --all")
    if workflow == "" or prefix == "":
        raise typer.BadParameter("what is empty selects nothing; --all is for all streams")
    if streams:
        names = dict.fromkeys(named(stream, encoded=encoded) for stream in streams)
        return _delete_named([stream_id(name, settings) for name in names], settings, yes=yes)
    selection = StreamSelection(
        settings.tenant,
        "" if prefix is None else named(prefix, encoded=encoded),
        None if workflow is None else named(workflow, encoded=encoded),
    )
    return _delete_selected(selection, settings, yes=yes)


def _delete_named(streams: list[StreamId], settings: Settings, *, yes: bool) -> int:
    found: list[str] = []
    running = 0

    async def find() -> int:
        nonlocal running
        if missing_database(settings) is not None:
            raise await not_found(streams[0], settings, None)
        async with open_queue(settings) as queue:
            for stream in streams:
                try:
                    found.append(await _summary(queue, stream, settings))
                except StreamNotFoundError as exc:
                    raise await not_found(stream, settings, queue) from exc
            running = await count_open(queue, streams, settings)
        return 0

    async def remove() -> int:
        async with open_queue(settings) as queue:
            for stream in streams:
                retry = retry_policy(settings, queue, stream)
                await retry.run(partial(calling.delete, queue, stream))
                show_notice(f"deleted {stream}")
        warn_after(running)
        return 0

    code = run_async(find)
    if code:
        return code
    warn_before(running)
    _confirm("; ".join(found), yes=yes)
    return run_async(remove)


def _delete_selected(selection: StreamSelection, settings: Settings, *, yes: bool) -> int:
    found: list[StreamId] = []
    running = 0

    async def find() -> int:
        nonlocal running
        if missing_database(settings) is None:
            async with open_queue(settings) as queue:
                found.extend(await selection.find(queue))
                running = await count_open(queue, found, settings)
        return 0

    async def remove() -> int:
        try:
            async with open_queue(settings) as queue:
                with _progress(len(found)) as on_erased:
                    erased = await erase_selected(selection, queue, settings, on_erased)
        except StreamsLeftError as exc:
            show_warning(str(exc))
            return _LEFT_EXIT
        show_notice(f"deleted {counted(erased)} of tenant {selection.tenant}")
        warn_after(running)
        return 0

    code = run_async(find)
    if code:
        return code
    if not found:
        show_notice(f"tenant {selection.tenant} has no such stream")
        return 0
    some = ", ".join(shown(stream.name) for stream in found[:_NAMED])
    rest = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    warn_before(running)
    _confirm(f"{counted(len(found))} of tenant {selection.tenant} ({some}{rest})", yes=yes)
    return run_async(remove)


def _confirm(what: str, *, yes: bool) -> None:
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigurationError("standard input is not a terminal; pass --yes to confirm")
    typer.confirm(f"Delete {what}?", abort=True, err=True)


@contextlib.contextmanager
def _progress(streams: int) -> Iterator[Callable[[StreamId], None]]:
    """Show on a terminal how many streams have been deleted."""
    console = stderr()
    if not console.is_terminal:
        yield lambda _: None
        return
    done = 0
    with console.status("deleting") as status:

        def count(_: StreamId) -> None:
            nonlocal done
            done += 1
            status.update(f"{done} of {counted(streams)} deleted")

        yield count


async def _summary(queue: ChunkQueue, stream: StreamId, settings: Settings) -> str:
    try:
        status = await describe(stream, queue=queue, settings=settings)
    except (CapabilityError, CorruptRecordError):
        return f"{stream} (unreadable)"  # such a stream can be deleted, too
    state = "OPEN" if status.seal is None else status.seal.state.name
    return f"{stream} ({state}, {status.offset} events)"
