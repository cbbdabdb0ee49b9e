"""``streamq delete``: removes streams before they expire."""

from __future__ import annotations

import sys
from functools import partial
from typing import Annotated

import typer

from streamq._errors import (
    CapabilityError,
    ConfigurationError,
    CorruptRecordError,
    StreamNotFoundError,
)
from streamq._events import StreamId
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue
from streamq.opening._open import describe, open_queue, retry_policy, stream_id

from ._completion import stream_names
from ._lookup import missing_database, not_found
from ._names import Encoded, named
from ._terminal import run_async, show_notice


def delete(
    streams: Annotated[
        list[str],
        typer.Argument(
            metavar="STREAM...",
            help="Names of the streams, within the tenant.",
            autocompletion=stream_names,
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask first.")] = False,
    encoded: Encoded = False,
) -> int:
    """Delete streams and their contents at once and for good.

    A stream that is not deleted disappears when it expires. Readers of a deleted stream get an
    error, and its name can be used again. A producer that still runs is not stopped. If one of the
    streams does not exist, none is deleted.

    \b
    Examples:
      streamq delete my-stream
      streamq delete my-stream my-other-stream --yes
    """
    settings = load_settings()
    names = dict.fromkeys(named(stream, encoded=encoded) for stream in streams)
    identities = [stream_id(name, settings) for name in names]
    found: list[str] = []

    async def find() -> int:
        if missing_database(settings) is not None:
            raise await not_found(identities[0], settings, None)
        async with open_queue(settings) as queue:
            for identity in identities:
                try:
                    found.append(await _summary(queue, identity, settings))
                except StreamNotFoundError as exc:
                    raise await not_found(identity, settings, queue) from exc
        return 0

    async def remove() -> int:
        async with open_queue(settings) as queue:
            for identity in identities:
                retry = retry_policy(settings, queue, identity)
                await retry.run(partial(calling.delete, queue, identity))
                show_notice(f"deleted {identity}")
        return 0

    code = run_async(find)
    if code:
        return code
    if not yes:
        if sys.stdin is None or not sys.stdin.isatty():
            raise ConfigurationError("standard input is not a terminal; pass --yes to confirm")
        typer.confirm(f"Delete {'; '.join(found)}?", abort=True, err=True)
    return run_async(remove)


async def _summary(queue: ChunkQueue, stream: StreamId, settings: Settings) -> str:
    try:
        status = await describe(stream, queue=queue, settings=settings)
    except (CapabilityError, CorruptRecordError):
        return f"{stream} (unreadable)"  # such a stream can be deleted, too
    state = "OPEN" if status.seal is None else status.seal.state.name
    return f"{stream} ({state}, {status.offset} events)"
