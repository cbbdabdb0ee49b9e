"""Completes arguments in the shell with values that exist on this machine."""

from __future__ import annotations

import asyncio

from streamq._drivers import installed_drivers
from streamq._open import open_queue
from streamq._settings import load_settings

from ._lookup import listed, missing_database

_MAX_NAMES = 200
_SECONDS = 1.0


def backend_names(incomplete: str) -> list[str]:
    """Return the installed backends."""
    return [name for name in installed_drivers() if name.startswith(incomplete)]


def deliveries(incomplete: str) -> list[str]:
    """Return the ways in which the demo's workflow can get chunks."""
    return [name for name in ("none", "poll") if name.startswith(incomplete)]


def beginnings(incomplete: str) -> list[str]:
    """Return the starts of a reader, except cursors, which are not typed by hand."""
    return [name for name in ("beginning", "tail") if name.startswith(incomplete)]


def stream_names(incomplete: str) -> list[str]:
    """Return the names of streams, or none if the backend is slow or fails."""

    async def find() -> list[str]:
        settings = load_settings()
        if missing_database(settings) is not None:
            return []
        async with asyncio.timeout(_SECONDS), open_queue(settings) as queue:
            infos = await listed(queue, settings.tenant, incomplete, _MAX_NAMES)
        return sorted(info.stream.name for info in infos)

    try:
        return asyncio.run(find())
    except Exception:  # noqa: BLE001 - completion must not fail; a command reports the error
        return []
