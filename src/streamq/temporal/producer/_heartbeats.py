"""Sends an attempt's heartbeats and cancels its work if the writer stops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from temporalio import activity

from streamq._errors import StreamqError
from streamq.temporal.activities._heartbeats import heartbeat_seconds
from streamq.writing._writer import StreamWriter

R = TypeVar("R")


class HeartbeatSender:
    """Sends heartbeats with the durable position while entered, from a task of its own.

    :meth:`guard` also watches the writers: when one has stopped in the background (it was fenced,
    or the backend was unreachable for too long), the user's function is cancelled instead of
    working for hours without a reader.

    Args:
        info: The attempt.
        longest_seconds: Longest interval. Cancellation arrives in that time, as far as the worker's
            throttle lets heartbeats through.
        beat: Sends a heartbeat with the position.
        cancels: Whether the work is cancelled when a writer stops.
    """

    def __init__(
        self,
        info: activity.Info,
        longest_seconds: float,
        beat: Callable[[object], None],
        *,
        cancels: bool = True,
    ) -> None:
        self._beat = beat
        self._cancels = cancels
        self._interval = heartbeat_seconds(info, longest_seconds)
        self._attempt = info.attempt
        self._beats = not info.is_local  # a local activity has no heartbeats
        self._writers: Sequence[StreamWriter] = ()
        self._failure: StreamqError | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="streamq-heartbeat")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def guard(self, writers: Sequence[StreamWriter], work: Awaitable[R]) -> R:
        """Await the user's work, cancelling it if a writer stops.

        Work in a thread cannot be cancelled; its next call to the writer raises.

        Raises:
            StreamqError: The error that stopped the writer, if the work was cancelled for it.
        """
        self._writers = writers
        task = asyncio.current_task()
        assert task is not None
        watches = [
            asyncio.create_task(self._watch(writer, task), name="streamq-watch-writer")
            for writer in writers
            if self._cancels
        ]
        try:
            return await work
        except asyncio.CancelledError:
            # Not if Temporal has requested cancellation as well.
            if self._failure is not None and task.cancelling() == 1:
                raise self._failure from None
            raise
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
            if self._failure is not None:
                task.uncancel()

    async def _watch(self, writer: StreamWriter, work: asyncio.Task[object]) -> None:
        failure = await writer.wait_stopped()
        if failure is not None and self._failure is None:
            self._failure = failure
            work.cancel("the stream's writer has stopped")

    async def _run(self) -> None:
        while self._beats:
            position = self._writers[0].durable_position if self._writers else None
            self._beat({"position": position, "attempt": self._attempt})
            await asyncio.sleep(self._interval)
