"""Runs one attempt of a streaming activity, and ends its streams as the attempt ends.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import temporalio.exceptions
from temporalio import activity

from streamq._errors import SealedError, StreamqError
from streamq.driver_parts._cleanup import to_the_end
from streamq.temporal.activities._context import ActivityContext
from streamq.writing._blocking import BlockingStreamWriter
from streamq.writing._owner import withdraw_seals
from streamq.writing._writer import StreamWriter

from ._ending import Ending
from ._given_writers import giving_writers
from ._heartbeats import HeartbeatSender
from ._leaving import Leaving, Leavings, is_destroyed
from ._opening import open_attempt_writer, opening_error, stream_of_attempt
from ._signature import StreamingSpec

_SEAL_SECONDS = 10.0
_THREAD_CHECK_SECONDS = 0.05
_CANCELLED = (asyncio.CancelledError, temporalio.exceptions.CancelledError)

logger = logging.getLogger("streamq.temporal")

R = TypeVar("R")


async def run_attempt(
    spec: StreamingSpec,
    context: ActivityContext,
    work: Callable[[], Awaitable[R]],
    beat: Callable[[object], None],
) -> R:
    """Run an activity with the writers of this attempt, and end its streams accordingly.

    Args:
        spec: How the activity streams.
        context: Context of the running activity.
        work: Runs the activity, in this task or in a thread.
        beat: Sends a heartbeat with streamq's own details.
    """
    info = activity.info()
    seconds, is_async = context.settings.cancel_seconds, spec.kind.is_async
    attempt = _Attempt(spec, context, info)
    async with HeartbeatSender(info, seconds, beat, cancels=is_async) as heartbeats:
        opening = asyncio.create_task(attempt.open())
        try:
            writers = await _until_cancelled(asyncio.shield(opening), spec)
        except _CANCELLED:
            await to_the_end(_end_unopened(attempt, info, opening))
            raise
        try:
            return await attempt.run(heartbeats, _with_writers(spec, writers, work))
        finally:
            await to_the_end(attempt.release())


async def _until_cancelled(waited: asyncio.Future[R], spec: StreamingSpec) -> R:
    """Await a step before or after the function, and stop waiting when the activity is cancelled.

    Temporal cancels the task of an async activity. While no thread runs the function of another
    one, it only sets a flag, which is polled here.
    """
    if spec.kind.is_async:
        return await waited
    while not waited.done():
        await asyncio.wait([waited], timeout=_THREAD_CHECK_SECONDS)
        if activity.is_cancelled() and not waited.done():
            raise temporalio.exceptions.CancelledError("Cancelled")
    return waited.result()


async def _with_writers(
    spec: StreamingSpec, writers: dict[str, StreamWriter], work: Callable[[], Awaitable[R]]
) -> R:
    """Run the function with the writers in its context."""
    if spec.kind.is_async:
        with giving_writers(dict(writers)):
            return await work()
    blocking = {name: BlockingStreamWriter(writer) for name, writer in writers.items()}
    watch = asyncio.create_task(_interrupt(list(blocking.values())), name="streamq-interrupt")
    try:
        with giving_writers(dict(blocking)):
            return await work()
    finally:
        watch.cancel()


async def _interrupt(writers: Sequence[BlockingStreamWriter]) -> None:
    """Wake a thread that waits in a writer when its activity is cancelled."""
    # Temporal has no event to await for activities in threads.
    while not activity.is_cancelled():  # noqa: ASYNC110
        await asyncio.sleep(_THREAD_CHECK_SECONDS)
    for writer in writers:
        writer.interrupt(temporalio.exceptions.CancelledError("Cancelled"))


async def _end_unopened(
    attempt: _Attempt, info: activity.Info, opening: asyncio.Task[dict[str, StreamWriter]]
) -> None:
    """Seal the stream for readers of earlier attempts, if it can still be opened."""
    ending = await attempt.leavings.of_cancellation()
    await asyncio.wait([opening], timeout=_SEAL_SECONDS if ending.state else 0)
    opening.cancel()
    writers: dict[str, StreamWriter] | BaseException
    [writers] = await asyncio.gather(opening, return_exceptions=True)
    if isinstance(writers, dict):
        await attempt.seal(ending)
        await attempt.release()
    elif ending.state:
        logger.warning(
            "activity %s was cancelled before it could open its stream, which therefore is not "
            "sealed; readers that watch the workflow notice that it has ended",
            info.activity_type,
        )


class _Attempt:
    """The writers of one attempt, and how their streams end."""

    def __init__(self, spec: StreamingSpec, context: ActivityContext, info: activity.Info) -> None:
        self.leavings = Leavings(context, info, converts=True)
        self._spec = spec
        self._context = context
        self._info = info
        self._writers: list[StreamWriter] = []
        self._gave_up = False

    async def open(self) -> dict[str, StreamWriter]:
        """Open every stream of the activity; if one cannot be opened, end the others with it."""
        is_open = False
        try:
            writers = await self._open()
            is_open = True
        except StreamqError as exc:
            error = opening_error(exc)
            error.__cause__ = exc
            raise await self._leave(error) from exc
        except Exception as exc:  # noqa: BLE001 - raised again
            raise await self._leave(exc) from exc.__cause__
        finally:
            if not is_open:
                await self.release()
        return writers

    async def _open(self) -> dict[str, StreamWriter]:
        context, info, spec = self._context, self._info, self._spec
        chosen = context.origin.topic if context.origin else None
        writers: dict[str, StreamWriter] = {}
        for name, topic in spec.topics(chosen).items():
            stream = await stream_of_attempt(context, info, topic)
            writers[name] = await open_attempt_writer(context, info, stream, spec)
            self._writers.append(writers[name])
        return writers

    async def run(self, heartbeats: HeartbeatSender, work: Awaitable[R]) -> R:
        """Await the work, and end the streams according to how it was left.

        This is the one place that every way of leaving passes: a return, and an exception of any
        class. The streams are sealed before Temporal gets the result or the failure.
        """
        task = asyncio.current_task()
        try:
            result = await heartbeats.guard(self._writers, work)
            await self.leavings.recording.check_result(result)
            await self._finish()
        except BaseException as exc:
            if is_destroyed(exc, task):
                raise
            failure = await to_the_end(self._leave(exc))
            if failure is exc:
                raise
            raise failure from failure.__cause__
        return result

    async def _leave(self, error: BaseException) -> BaseException:
        """End the streams after an error; return the exception for Temporal."""
        leaving: Leaving = await self.leavings.of(error)
        await self.seal(leaving.ending)
        return leaving.failure

    async def _finish(self) -> None:
        """Seal END. A cancellation that arrives meanwhile is heard.

        Raises:
            CancelledError: The activity was cancelled, and END is neither stored nor on its way in
                any stream; or not stored in every one in time.
        """
        open_writers = [each for each in self._writers if not each.is_sealed]
        was_cancelled = activity.is_cancelled()
        finishing = asyncio.create_task(_finish_all(open_writers), name="streamq-finish")
        try:
            if was_cancelled:  # the function has caught that, and nothing announces it again
                async with asyncio.timeout(_SEAL_SECONDS):
                    await asyncio.shield(finishing)
            else:
                await _until_cancelled(asyncio.shield(finishing), self._spec)
        except (*_CANCELLED, TimeoutError) as exc:
            if not await to_the_end(self._is_end_stored(finishing, open_writers)):
                if isinstance(exc, TimeoutError):
                    raise temporalio.exceptions.CancelledError("Cancelled") from exc
                raise

    async def _is_end_stored(
        self, finishing: asyncio.Task[None], writers: Sequence[StreamWriter]
    ) -> bool:
        """Take END back if no stream's was sent; else wait whether every one's is stored."""
        if withdraw_seals(*writers):
            finishing.cancel()
            await asyncio.gather(finishing, return_exceptions=True)
            return False
        # Readers of one may get END, so that the activity has to complete if they do, and the
        # other streams need it too.
        await asyncio.wait([finishing], timeout=_SEAL_SECONDS)
        has_finished = finishing.done() and not finishing.cancelled() and not finishing.exception()
        if has_finished and all(each.is_sealed for each in writers):
            return True
        finishing.cancel()
        await asyncio.gather(finishing, return_exceptions=True)
        self._gave_up = True
        return False

    async def release(self) -> None:
        """Close the writers; at once if the deadline of a seal has passed already."""
        for writer in self._writers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if self._gave_up else None):
                    await writer.aclose()

    async def seal(self, ending: Ending) -> None:
        """Seal every stream that is not sealed, unless they are left to the next attempt."""
        if ending.state is not None:
            await asyncio.gather(*(self._seal_one(each, ending) for each in self._writers))

    async def _seal_one(self, writer: StreamWriter, ending: Ending) -> None:
        try:
            async with asyncio.timeout(0 if self._gave_up else _SEAL_SECONDS):
                await ending.seal(writer)
        except SealedError:
            pass  # the user's function sealed it, or its END was in transit: that seal stays
        except (StreamqError, TimeoutError) as exc:
            self._gave_up = True
            logger.warning(
                "stream %s could not be sealed %s (%s: %s); readers that watch the workflow notice "
                "that it has ended",
                writer.stream,
                ending.state and ending.state.name,
                type(exc).__name__,
                exc,
            )


async def _finish_all(writers: Sequence[StreamWriter]) -> None:
    for writer in writers:
        if not writer.is_sealed:
            await writer.finish()
