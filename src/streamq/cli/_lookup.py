"""Finds streams for the commands: their location, their names, and similar names."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from pathlib import Path
from urllib.parse import unquote

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._events import StreamId, shown
from streamq._settings import Settings, build, check_variables
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue, StreamInfo
from streamq.opening._drivers import installed_drivers, load_driver
from streamq.over_http._queue import GatewayQueue
from streamq.sqlite import SqliteSettings

_MAX_NAMES = 2_000
_SECONDS = 3.0
_MAX_SIMILAR = 3


def database(settings: Settings) -> Path | None:
    """Return the file that stores the streams; ``None`` if the backend uses no file.

    Raises:
        ConfigurationError: The backend is not installed, or a setting is unknown or invalid.
    """
    driver = load_driver(settings.backend)
    check_variables(settings, driver.settings_type, installed_drivers())
    if driver.settings_type is not SqliteSettings:
        return None
    return build(SqliteSettings).path.expanduser().absolute()


def location(settings: Settings) -> str:
    """Return the location that is searched for streams, for messages."""
    return _with_file(f"backend {settings.backend}, tenant {settings.tenant}", settings)


def backend_place(settings: Settings) -> str:
    """Return where the backend stores everything, whatever the tenant, for messages."""
    return _with_file(f"backend {settings.backend}", settings)


def _with_file(where: str, settings: Settings) -> str:
    found = database(settings)
    return where if found is None else f"{where}, file {found}"


def missing_database(settings: Settings) -> Path | None:
    """Return the file of the backend if it does not exist, so that reading does not create it.

    Raises:
        ConfigurationError: The backend is not installed, or a setting is unknown or invalid.
    """
    found = database(settings)
    # The driver reports a path that cannot be used at all.
    with contextlib.suppress(OSError, ValueError):
        return None if found is None or found.exists() else found
    return None


async def listed(queue: ChunkQueue, tenant: str, prefix: str, most: int) -> list[StreamInfo]:
    """Return at most ``most`` streams of a tenant, in no particular order.

    Raises:
        StreamqError: The backend cannot be queried.
    """
    found: list[StreamInfo] = []
    async with contextlib.aclosing(calling.streams(queue, tenant, prefix)) as infos:
        async for info in infos:
            found.append(info)
            if len(found) == most:
                break
    return found


async def not_found(
    stream: StreamId, settings: Settings, queue: ChunkQueue | None, advice: str = ""
) -> StreamNotFoundError:
    """Return the error for a stream that does not exist, with similar names and the next step.

    Args:
        stream: The stream.
        settings: The settings in effect.
        queue: Queue to search for similar names; ``None`` if no stream exists at all.
        advice: Further advice from the command.
    """
    similar = await _similar(queue, stream) if queue is not None else []
    if isinstance(queue, GatewayQueue):
        guess = "check the address, and what the token permits"
        if similar:
            guess = f"did you mean {' or '.join(map(_quoted, similar))}?"
        where = f"gateway {queue.address.root}"
        hints = "; ".join(filter(None, (guess, advice)))
        return StreamNotFoundError(
            f"there is no stream {stream}, or it has expired ({where}); {hints}", stream=str(stream)
        )
    if similar:
        guess = f"did you mean {' or '.join(map(_quoted, similar))}?"
    else:
        guess = (
            "check the name (workflow id/first run id/topic or activity id/activity-run id/topic), "
            "STREAMQ_BACKEND and STREAMQ_TENANT"
        )
        if database(settings) is not None:
            guess += "; a relative STREAMQ_SQLITE_PATH is resolved from this directory"
    absent = ", which does not exist" if queue is None else ""
    hints = "; ".join(filter(None, (guess, "`streamq ls` lists the streams", advice)))
    return StreamNotFoundError(
        f"there is no stream {stream}, or it has expired ({location(settings)}{absent}); {hints}",
        stream=str(stream),
    )


def _quoted(name: str) -> str:
    return repr(name) if shown(name) == name else repr(f"--encoded {shown(name)}")


async def _similar(queue: ChunkQueue, stream: StreamId) -> list[str]:
    """Return names that begin with the name, then similar ones; none if the backend is slow."""
    names: list[str] = []
    with contextlib.suppress(StreamqError, TimeoutError):
        async with asyncio.timeout(_SECONDS):
            infos = await listed(queue, stream.tenant, "", _MAX_NAMES)
        names = sorted(info.stream.name for info in infos)
    longer = [name for name in names if name.startswith((stream.name, unquote(stream.name)))]
    like = difflib.get_close_matches(stream.name, names, n=_MAX_SIMILAR)
    return list(dict.fromkeys([*longer, *like]))[:_MAX_SIMILAR]
