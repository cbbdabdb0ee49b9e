"""Completes arguments in the shell with values that exist on this machine."""

from __future__ import annotations

import asyncio

import typer

from streamq._events import shown
from streamq._setting_origins import directory_files_name_code_or_servers
from streamq._settings import load_settings
from streamq.driver_parts._named_code import without_named_code
from streamq.opening._drivers import installed_drivers
from streamq.opening._open import open_queue

from ._lookup import listed, missing_database
from ._names import encoded_name

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
    return [name for name in ("beginning", "last", "tail") if name.startswith(incomplete)]


def stream_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of streams, or none if the backend is slow or fails.

    A file of the directory that names code or a server is not used, unless the environment asks
    for it: to press a key must not connect to anybody's server.

    Names with invisible characters are offered after ``--encoded`` only: a shell cannot take them.
    """
    encoded = bool(context.params.get("encoded"))
    prefix = incomplete.partition("%")[0] if encoded else incomplete

    async def find() -> list[str]:
        if directory_files_name_code_or_servers():
            return []  # nobody asked for anything but names
        settings = load_settings()
        if missing_database(settings) is not None:
            return []
        async with asyncio.timeout(_SECONDS), open_queue(settings) as queue:
            infos = await listed(queue, settings.tenant, prefix, _MAX_NAMES)
        names = sorted(info.stream.name for info in infos)
        if encoded:
            return [each for each in map(encoded_name, names) if each.startswith(incomplete)]
        return [name for name in names if shown(name) == name]

    try:
        with without_named_code():
            return asyncio.run(find())
    except Exception:  # noqa: BLE001 - completion must not fail; a command reports the error
        return []
