"""Finding streams: where they are kept, which there are, and which name was meant."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import AsyncGenerator
from pathlib import Path

from streamq._drivers import installed_drivers, load_driver
from streamq._errors import StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq._settings import Settings, build, check_variables
from streamq.driver import ChunkQueue, StreamInfo
from streamq.sqlite import SqliteSettings

_MOST_NAMES = 2_000
_SECONDS = 3.0
_MOST_SIMILAR = 3


def database(settings: Settings) -> Path | None:
    """Return the file in which the streams are kept; ``None`` if the backend has none.

    Raises:
        ConfigurationError: The backend is not installed, or a setting is unknown or invalid.
    """
    driver = load_driver(settings.backend)
    check_variables(settings, driver.settings_type, installed_drivers())
    if driver.settings_type is not SqliteSettings:
        return None
    return build(SqliteSettings).path.expanduser().absolute()


def place(settings: Settings) -> str:
    """Return where streams are looked for, for messages."""
    found = database(settings)
    where = f"backend {settings.backend}, tenant {settings.tenant}"
    return where if found is None else f"{where}, file {found}"


def nothing_yet(settings: Settings) -> Path | None:
    """Return the file that does not exist and that merely looking must not create.

    Raises:
        ConfigurationError: The backend is not installed, or a setting is unknown or invalid.
    """
    found = database(settings)
    # What is no usable path at all is told by the driver.
    with contextlib.suppress(OSError, ValueError):
        return None if found is None or found.exists() else found
    return None


async def listed(queue: ChunkQueue, tenant: str, prefix: str, most: int) -> list[StreamInfo]:
    """Return the streams of a tenant in no order, and no more than ``most`` of them.

    Raises:
        StreamqError: The backend cannot be asked.
    """
    found: list[StreamInfo] = []
    infos = queue.streams(tenant, prefix)
    try:
        async for info in infos:
            found.append(info)
            if len(found) == most:
                break
    finally:
        if isinstance(infos, AsyncGenerator):
            await infos.aclose()
    return found


async def not_found(
    stream: StreamId, settings: Settings, queue: ChunkQueue | None, advice: str = ""
) -> StreamNotFoundError:
    """Return the error for a stream that does not exist: with similar names and the next step.

    Args:
        stream: Which stream.
        settings: What is in effect.
        queue: Where to look for similar names; ``None`` if there is nothing at all.
        advice: What else could help, from the command.
    """
    similar = await _similar(queue, stream) if queue is not None else []
    if similar:
        guess = f"did you mean {' or '.join(map(repr, similar))}?"
    else:
        guess = (
            "check the name (workflow id/first run id/topic), STREAMQ_BACKEND and STREAMQ_TENANT"
        )
        if database(settings) is not None:
            guess += "; a relative STREAMQ_SQLITE_PATH counts from this directory"
    absent = ", which does not exist" if queue is None else ""
    hints = "; ".join(filter(None, (guess, "`streamq ls` lists what there is", advice)))
    return StreamNotFoundError(
        f"there is no stream {stream}, or it has expired ({place(settings)}{absent}); {hints}",
        stream=str(stream),
    )


async def _similar(queue: ChunkQueue, stream: StreamId) -> list[str]:
    """Return names that begin with it, then names like it; none if that takes long."""
    names: list[str] = []
    with contextlib.suppress(StreamqError, TimeoutError):
        async with asyncio.timeout(_SECONDS):
            infos = await listed(queue, stream.tenant, "", _MOST_NAMES)
        names = sorted(info.stream.name for info in infos)
    longer = [name for name in names if name.startswith(stream.name)]
    like = difflib.get_close_matches(stream.name, names, n=_MOST_SIMILAR)
    return list(dict.fromkeys([*longer, *like]))[:_MOST_SIMILAR]
