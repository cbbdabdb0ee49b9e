"""Opens queues on a file, after checking that it can be one of ours.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Driver,
    Finding,
    LatencyClass,
    QueueOptions,
)

from ._doctor import examine
from ._errors import BACKEND
from ._file import absolute
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
        queue = SqliteQueue(options, settings, cls.capabilities, absolute(settings.path))
        await queue.opened()
        return queue

    @classmethod
    async def examine(cls, options: QueueOptions, settings: SqliteSettings) -> Sequence[Finding]:
        """Examine the file, its file system and the room there; create the file if there is none.

        Raises:
            StreamqError: As for :meth:`open`.
        """
        async with await cls.open(options, settings):
            path = absolute(settings.path)
            return await asyncio.to_thread(lambda: examine(path.resolve(), settings))
