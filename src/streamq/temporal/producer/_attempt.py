"""Runs one attempt of a streaming activity, and ends its streams as the attempt ends.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, TypeGuard, TypeVar

import temporalio.exceptions
from temporalio import activity

from streamq._errors import FencedError, SealedError, StreamqError
from streamq._events import SealState
from streamq.driver_parts._cleanup import to_the_end
from streamq.temporal._failure import application_error, is_final, is_retryable, shown_to_readers
from streamq.temporal.activities._context import ActivityContext
from streamq.writing._blocking import BlockingStreamWriter
from streamq.writing._writer import StreamWriter

from ._execution_ending import ending_of_execution
from ._given_writers import giving_writers
from ._heartbeats import HeartbeatSender
from ._opening import FENCED_HINT, open_attempt_writer, opening_error, stream_of_attempt
from ._signature import StreamingSpec

_SEAL_SECONDS = 10.0
_THREAD_CHECK_SECONDS = 0.05

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
        except (asyncio.CancelledError, temporalio.exceptions.CancelledError):
            await to_the_end(_end_unopened(attempt, info, opening))
            raise
        try:
            return await attempt.run(heartbeats, _with_writers(spec, writers, work))
        finally:
            await to_the_end(attempt.release())


async def _until_cancelled(opening: asyncio.Future[R], spec: StreamingSpec) -> R:
    """Await the opening of the writers, and stop waiting when the activity is cancelled.

    Temporal cancels the task of an async activity. For an activity in a thread that has not begun,
    it only sets a flag, which is polled here.
    """
    if spec.kind.is_async:
        return await opening
    while not opening.done():
        await asyncio.wait([opening], timeout=_THREAD_CHECK_SECONDS)
        if activity.is_cancelled():
            raise temporalio.exceptions.CancelledError("Cancelled")
    return opening.result()


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
    wanted = _may_be_final(activity.cancellation_details())
    await asyncio.wait([opening], timeout=_SEAL_SECONDS if wanted else 0)
    opening.cancel()
    writers: dict[str, StreamWriter] | BaseException
    [writers] = await asyncio.gather(opening, return_exceptions=True)
    if isinstance(writers, dict):
        await attempt.seal_cancelled()
        await attempt.release()
    elif wanted:
        logger.warning(
            "activity %s was cancelled before it could open its stream, which therefore is not "
            "sealed; readers that watch the workflow notice that it has ended",
            info.activity_type,
        )


class _Attempt:
    """The writers of one attempt, and how their streams end."""

    def __init__(self, spec: StreamingSpec, context: ActivityContext, info: activity.Info) -> None:
        self._spec = spec
        self._context = context
        self._info = info
        self._writers: list[StreamWriter] = []
        self._started = time.monotonic()
        self._gave_up = False

    async def open(self) -> dict[str, StreamWriter]:
        """Open every stream of the activity; if one cannot be opened, end the others with it."""
        is_open = False
        try:
            writers = await self._open()
            is_open = True
        except StreamqError as exc:
            error = opening_error(exc)
            await self._seal_failed(error)
            raise error from exc
        except Exception as exc:
            await self._seal_failed(exc)
            raise
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
        """Await the work, and seal the streams according to how it ends."""
        try:
            result = await heartbeats.guard(self._writers, work)
            for writer in self._writers:
                if not writer.is_sealed:
                    await writer.finish()
        except (asyncio.CancelledError, temporalio.exceptions.CancelledError) as exc:
            # Cancellation that the user's own tasks raised is a failure like any other.
            if not activity.is_cancelled():
                ending = self._seal_failed(exc)
            elif activity.cancellation_details() is None:
                # The SDK cancels without details an activity whose heartbeat it cannot encode.
                ending = self._seal_failed(
                    RuntimeError("the details of a heartbeat cannot be encoded")
                )
            else:
                ending = self.seal_cancelled()
            await to_the_end(ending)
            raise
        except StreamqError as exc:
            hint = FENCED_HINT if isinstance(exc, FencedError) else ""
            error = application_error(exc, hint=hint)
            if not isinstance(exc, FencedError):
                await to_the_end(self._seal_failed(error))
            raise error from exc
        except Exception as exc:
            await to_the_end(self._seal_failed(exc))
            raise
        return result

    async def release(self) -> None:
        """Close the writers; at once if the deadline of a seal has passed already."""
        for writer in self._writers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if self._gave_up else None):
                    await writer.aclose()

    async def seal_cancelled(self) -> None:
        """Seal CANCELLED if no attempt will follow; else leave the stream to the next attempt."""
        details = activity.cancellation_details()
        if not _may_be_final(details):
            return  # worker shutdown, timeout, pause, reset: an attempt will follow
        if not details.not_found:
            await self._seal(lambda writer: writer.cancel("cancelled"), "CANCELLED")
            return
        # The server states this of a superseded attempt, and of a reset or retried run, too.
        ending = await ending_of_execution(self._context, self._info)
        if ending is None:
            return
        message, kind = ending.message, ending.error_type
        if ending.state is SealState.ERROR:
            await self._seal(lambda writer: writer.fail(message, error_type=kind), "ERROR")
        else:
            await self._seal(lambda writer: writer.cancel(message), "CANCELLED")

    async def _seal_failed(self, error: BaseException) -> None:
        """Seal ERROR if neither the activity nor its workflow will be retried."""
        origin = self._context.origin
        if origin is not None and origin.workflow_retries:
            return
        elapsed = timedelta(seconds=time.monotonic() - self._started)
        if is_final(error, self._info, elapsed):
            retryable = is_retryable(error, self._info)
            kind, text = shown_to_readers(error)
            await self._seal(
                lambda writer: writer.fail(text, error_type=kind, retryable=retryable), "ERROR"
            )

    async def _seal(
        self, sealing: Callable[[StreamWriter], Coroutine[Any, Any, None]], state: str
    ) -> None:
        await asyncio.gather(
            *(self._seal_one(each, sealing(each), state) for each in self._writers)
        )

    async def _seal_one(
        self, writer: StreamWriter, sealing: Coroutine[Any, Any, None], state: str
    ) -> None:
        try:
            async with asyncio.timeout(_SEAL_SECONDS):
                await sealing
        except SealedError:
            pass  # the user's function sealed it, or its END was in transit: that seal stays
        except (StreamqError, TimeoutError) as exc:
            self._gave_up = True
            logger.warning(
                "stream %s could not be sealed %s (%s: %s); readers that watch the workflow notice "
                "that it has ended",
                writer.stream,
                state,
                type(exc).__name__,
                exc,
            )


def _may_be_final(
    details: activity.ActivityCancellationDetails | None,
) -> TypeGuard[activity.ActivityCancellationDetails]:
    return details is not None and (details.not_found or details.cancel_requested)
