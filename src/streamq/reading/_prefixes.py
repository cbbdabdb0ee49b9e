"""Finds the streams below prefixes by listing them, again and again.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from streamq._errors import ConfigurationError, StreamqError
from streamq._events import StreamId
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue

from ._readers import StreamReaders
from ._stream_event import StreamFound


class PrefixWatch:
    """Begins to read streams that a list shows and that are not read yet.

    A stream that has ended, failed or was removed is not begun again while it is listed.

    Args:
        readers: Read the streams.
        queue: What is listed.
        tenant: Whose streams.
        prefixes: Beginnings of their names.
        list_seconds: Interval of the lists.
        retry_seconds: How long a list may fail before the iteration raises its error.
    """

    def __init__(
        self,
        readers: StreamReaders[Any, Any],
        queue: ChunkQueue,
        tenant: str,
        prefixes: Sequence[str],
        *,
        list_seconds: float,
        retry_seconds: float,
    ) -> None:
        self._readers = readers
        self._queue = queue
        self._tenant = tenant
        self._prefixes = prefixes
        self._begun: set[StreamId] = set()
        self._list_seconds = list_seconds
        self._retry_seconds = retry_seconds

    async def look(self, *, is_new: bool) -> None:
        """List the streams once, and begin to read those that are not known.

        Args:
            is_new: Whether they have begun since the last list.

        Raises:
            ConfigurationError: They are more than are read at once.
            StreamqError: They cannot be listed.
        """
        listed: set[StreamId] = set()
        for prefix in self._prefixes:
            infos = calling.streams(self._queue, self._tenant, prefix)
            async with contextlib.aclosing(infos):
                async for info in infos:
                    if info.stream not in listed:
                        listed.add(info.stream)
                        await self._begin(info.stream, is_new=is_new)
        # What is gone is forgotten: another stream may begin under its name.
        gone = self._begun - listed
        self._begun -= gone
        self._readers.forget(gone)

    async def run(self) -> None:
        """List at each interval, for ever."""
        loop = asyncio.get_running_loop()
        failing_since: float | None = None
        while True:
            await asyncio.sleep(self._list_seconds)
            try:
                await self.look(is_new=True)
                failing_since = None
            except ConfigurationError as exc:
                self._readers.report(exc)
            except StreamqError as exc:
                now = loop.time()
                failing_since = now if failing_since is None else failing_since
                if not exc.retryable or now - failing_since >= self._retry_seconds:
                    failing_since = None
                    self._readers.report(exc)
            except Exception as exc:  # noqa: BLE001 - raised by the iteration
                self._readers.report(exc)
                return

    async def _begin(self, stream: StreamId, *, is_new: bool) -> None:
        readers = self._readers
        if stream in self._begun or readers.knows(stream):
            return
        try:
            await readers.begin(stream, "beginning" if is_new else None, found=StreamFound(is_new))
        except ConfigurationError:  # too many streams: this one is found again later
            raise
        except StreamqError as exc:
            readers.fail(stream, exc)
        self._begun.add(stream)
