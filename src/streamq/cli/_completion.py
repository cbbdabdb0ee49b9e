"""What the shell completes: values that only this machine knows."""

from __future__ import annotations

import asyncio

from streamq._drivers import installed_drivers
from streamq._open import open_queue
from streamq._settings import load_settings

from ._lookup import listed, nothing_yet

_MOST = 200
_SECONDS = 1.0


def backend_names(incomplete: str) -> list[str]:
    """Return the installed backends."""
    return [name for name in installed_drivers() if name.startswith(incomplete)]


def deliveries(incomplete: str) -> list[str]:
    """Return what the demo's workflow can do with chunks."""
    return [name for name in ("none", "poll") if name.startswith(incomplete)]


def beginnings(incomplete: str) -> list[str]:
    """Return where a reader can begin; nobody types a cursor."""
    return [name for name in ("beginning", "tail") if name.startswith(incomplete)]


def stream_names(incomplete: str) -> list[str]:
    """Return the names of streams, or none if that takes long or fails."""

    async def find() -> list[str]:
        settings = load_settings()
        if nothing_yet(settings) is not None:
            return []
        async with asyncio.timeout(_SECONDS), open_queue(settings) as queue:
            infos = await listed(queue, settings.tenant, incomplete, _MOST)
        return sorted(info.stream.name for info in infos)

    try:
        return asyncio.run(find())
    except Exception:  # noqa: BLE001 - whatever it is, a command will tell; here is no place to
        return []
