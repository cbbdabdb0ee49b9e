"""Receives notifications of new segments, in a queue of this process.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TypeAlias

from streamq.driver import StreamqError
from streamq_s3sns.requests._lazy_clients import LazyClients

from ._wake_up_queue import WakeUpQueue, unexpected

_logger = logging.getLogger("streamq.s3sns")

_ALIVE_SECONDS = 600.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0

Wake: TypeAlias = Callable[[str, int], None]
"""Called with the directory of a stream and the number of its new segment."""


class NotificationListener:
    """Listens in the background, from when it is first needed.

    The SQS queue is created when the first reader of the process waits, and removed when the
    listener is closed.

    Args:
        clients: Open the clients of SNS and SQS.
        topic_arn: The topic.
        scope: Bucket and prefix: only notifications of the same scope are received.
        wake: Called for every notification.
        kms_key_id: Key of KMS for the queue; ``None`` for the default of SQS.
    """

    def __init__(
        self,
        clients: LazyClients,
        topic_arn: str,
        scope: str,
        wake: Wake,
        *,
        kms_key_id: str | None = None,
    ) -> None:
        self._wake = wake
        self._queue = WakeUpQueue(clients, topic_arn, scope, kms_key_id)
        self._task: asyncio.Task[None] | None = None
        self._clock = asyncio.get_running_loop().time
        self._alive_until = self._clock() + _ALIVE_SECONDS
        self.is_listening = False
        """Whether notifications are being received now."""

    def listen(self) -> None:
        """Begin to listen, soon. Never fails, never waits."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="streamq-s3sns-listener")

    async def aclose(self, patience_seconds: float) -> None:
        """Stop listening, and remove the queue if that takes no longer than so many seconds."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self.is_listening = False
        with contextlib.suppress(StreamqError, TimeoutError):
            async with asyncio.timeout(patience_seconds):
                await self._queue.remove()

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._queue.open()
                self.is_listening = True
                await self._receive()
                pause = _FIRST_PAUSE
            except Exception as exc:
                self.is_listening = False
                level = logging.WARNING if pause == _FIRST_PAUSE else logging.DEBUG
                message = "no notifications for now, readers poll: %s"
                _logger.log(level, message, exc, exc_info=unexpected(exc))
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _receive(self) -> None:
        for message in await self._queue.receive():
            number, _, directory = message.partition(" ")
            if number.isascii() and number.isdigit() and len(number) <= 12:
                self._wake(directory, int(number))
        if self._clock() >= self._alive_until:
            await self._queue.keep_alive()
            self._alive_until = self._clock() + _ALIVE_SECONDS
