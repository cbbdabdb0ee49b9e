"""Opens queues on a file, after checking that it can be one of ours.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from streamq.driver import (
    AccessDeniedError,
    Capabilities,
    ChunkQueue,
    ConfigurationError,
    Driver,
    LatencyClass,
    QueueOptions,
)

from ._errors import BACKEND
from ._queue import SqliteQueue
from ._settings import SqliteSettings


class SqliteDriver(Driver[SqliteSettings]):
    """Streams in one SQLite file, for any number of processes on one machine.

    A blocked reader is woken through a socket in the directory ``<file>-wake``, within about a
    millisecond. In case a wake-up is lost, it also looks once a second.
    """

    name = BACKEND
    summary = "one local file, no server; many processes on one machine"
    capabilities = Capabilities(
        replay=True,
        fan_out=True,
        ordered=True,
        fenced=True,
        durable=True,
        cross_process=True,
        cross_host=False,
        expires=True,
        max_record_bytes=64 * 2**20,
        latency=LatencyClass.MILLISECONDS,
    )
    settings_type = SqliteSettings

    @classmethod
    async def open(cls, options: QueueOptions, settings: SqliteSettings) -> ChunkQueue:
        """Open the file; create it and its directory if there are none.

        Raises:
            BackendUnavailableError: Another process keeps it locked.
            AccessDeniedError: We may not write to the file or its directory.
            ConfigurationError: The path cannot be a database, or belongs to another application.
            BackendError: The file is damaged.
        """
        path = await asyncio.to_thread(_prepare, settings.path)
        queue = SqliteQueue(options, settings, cls.capabilities, path)
        await queue.opened()
        return queue


def _prepare(path: Path) -> Path:
    """Create the directory and return the real path.

    Raises:
        ConfigurationError: The path cannot be used.
        AccessDeniedError: We may not write there.
    """
    hint = "set STREAMQ_SQLITE_PATH to a file on a local disk"
    if str(path) == ":memory:" or str(path).startswith("file:"):
        raise ConfigurationError(
            f"{str(path)!r} is not a file path; {hint}, or use the memory backend", backend=BACKEND
        )
    try:
        path = path.expanduser().resolve()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        is_directory = path.is_dir()
    except PermissionError as exc:
        raise AccessDeniedError(f"cannot use {path}: {exc}; {hint}", backend=BACKEND) from exc
    except (OSError, RuntimeError, ValueError) as exc:
        raise ConfigurationError(f"cannot use {path}: {exc}; {hint}", backend=BACKEND) from exc
    if is_directory:
        raise ConfigurationError(f"{path} is a directory; {hint}", backend=BACKEND)
    existing = path if path.exists() else path.parent
    if not (os.access(existing, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
        raise AccessDeniedError(
            f"{existing} is read-only for this process, and SQLite has to write to the file and "
            f"its directory; {hint}",
            backend=BACKEND,
        )
    return path
