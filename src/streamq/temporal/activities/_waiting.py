"""Runs activities that wait in tasks of the worker, so that they occupy none of its slots.

Design: docs/design/temporal-holding.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, NoReturn

from temporalio import activity
from temporalio.activity import ActivityCancellationDetails
from temporalio.client import AsyncActivityCancelledError, AsyncActivityHandle, Client
from temporalio.converter import ActivitySerializationContext
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.service import RPCError, RPCStatusCode

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._retry import RetryPolicy
from streamq.temporal._rpc import rpc_error

from ._heartbeats import Details

_AT_ONCE = timedelta(milliseconds=1)
_RPC_TIMEOUT = timedelta(seconds=10)
_REPORT_SECONDS = 30.0
_CLOSE_SECONDS = 10.0

_logger = logging.getLogger("streamq.temporal")


class WaitingActivities:
    """The activities of one worker that wait outside of its slots.

    Each has left its slot by Temporal's asynchronous completion, and a task of its own. The task
    sends heartbeats, notices cancellation by their answers, and reports the end by the worker's
    client. Their number is limited; a further one waits in its slot. They are taken while the
    worker runs: between :meth:`open` and as many calls of :meth:`aclose`.
    """

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[None], _WaitingActivity] = {}
        self._opened = self._most = 0
        self._has_warned = False

    def open(self, most: int) -> None:
        """Begin to take activities, as many as ``most`` at the same time."""
        self._opened += 1
        self._most = most

    def has_room(self) -> bool:
        """Whether a further activity can be taken. The first time that none can is logged."""
        if len(self._tasks) < self._most:
            return True
        if self._most and not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "%d activities of streamq wait on this worker (STREAMQ_MAX_WAITING_ACTIVITIES); "
                "further ones occupy activity slots while they wait, so that producers may find "
                "none; run more workers, or raise the limit if there is memory",
                self._most,
            )
        return False

    def take(
        self, work: Coroutine[Any, Any, Any], *, beat_seconds: float, details: Details
    ) -> NoReturn:
        """Run the rest of the current activity in a task, and leave its slot.

        The caller checks that there is room.

        Args:
            work: Returns the activity's result, or raises its failure. It runs in the context of
                the activity, without its heartbeats.
            beat_seconds: Interval of heartbeats.
            details: Returns the details of a heartbeat.

        Raises:
            ApplicationError: The worker has shut down; another attempt follows.
        """
        if not self._opened:
            work.close()
            raise _shut_down()
        info = activity.info()
        waiting = _WaitingActivity(activity.client(), info, beat_seconds, details)
        task = asyncio.create_task(waiting.run(work), name=f"{info.activity_type} waiting")
        self._tasks[task] = waiting
        task.add_done_callback(self._tasks.pop)
        activity.raise_complete_async()

    async def aclose(self) -> None:
        """Give all of them back to Temporal, so that another worker continues them at once."""
        self._opened -= 1
        if self._opened:
            return
        for waiting in self._tasks.values():
            waiting.give_back()
        tasks = list(self._tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=_CLOSE_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _WaitingActivity:
    """An activity that has left its slot."""

    def __init__(
        self, client: Client, info: activity.Info, beat_seconds: float, details: Details
    ) -> None:
        self._handle = _handle_of(client, info)
        of = f"workflow {info.workflow_id!r}" if info.workflow_id else f"id {info.activity_id!r}"
        self._name = f"{info.activity_type} of {of}"
        self._beat_seconds = beat_seconds
        self._details = details
        self._released: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def give_back(self) -> None:
        """Stop waiting, and let Temporal schedule another attempt."""
        if not self._released.done():
            self._released.set_result(None)

    async def run(self, work: Coroutine[Any, Any, Any]) -> None:
        """Await the work, and report how it ends."""
        working = asyncio.create_task(work, name="streamq-waiting")
        beating = asyncio.create_task(self._beat(), name="streamq-heartbeat")
        try:
            await asyncio.wait(
                [working, beating, self._released], return_when=asyncio.FIRST_COMPLETED
            )
            if not working.done():
                working.cancel()
                await asyncio.wait([working])
            await self._report(working, beating.result() if beating.done() else None)
        finally:
            for task in (working, beating):
                task.cancel()
            await asyncio.gather(working, beating, return_exceptions=True)

    async def _beat(self) -> ActivityCancellationDetails:
        """Send heartbeats until the activity is cancelled; return why."""
        while True:
            await asyncio.sleep(self._beat_seconds)
            try:
                await self._handle.heartbeat(*self._details(), rpc_timeout=_RPC_TIMEOUT)
            except AsyncActivityCancelledError as exc:
                return exc.details or ActivityCancellationDetails(cancel_requested=True)
            except Exception as exc:  # noqa: BLE001 - a payload codec may raise anything
                if isinstance(exc, RPCError) and exc.status is RPCStatusCode.NOT_FOUND:
                    return ActivityCancellationDetails(not_found=True)
                # The next one may arrive. Without any, Temporal schedules another attempt.
                _logger.debug("a heartbeat of %s failed: %s", self._name, exc)

    async def _report(
        self, working: asyncio.Task[Any], cancelled: ActivityCancellationDetails | None
    ) -> None:
        if cancelled is not None and cancelled.not_found:
            return None  # its workflow has ended, or another attempt has begun
        failure = asyncio.CancelledError() if working.cancelled() else working.exception()
        if failure is None:
            try:
                return await self._send(
                    lambda: self._handle.complete(working.result(), rpc_timeout=_RPC_TIMEOUT)
                )
            except Exception as exc:  # noqa: BLE001 - a data converter may raise anything
                failure = exc
        if isinstance(failure, asyncio.CancelledError):
            if cancelled is not None and cancelled.cancel_requested:
                return await self._send(
                    lambda: self._handle.report_cancellation(rpc_timeout=_RPC_TIMEOUT)
                )
            failure = _interruption(cancelled, is_released=self._released.done())
        elif not isinstance(failure, Exception):
            failure = ApplicationError(str(failure), type=type(failure).__name__)
        if not _is_benign(failure):
            _logger.warning("%s failed", self._name, exc_info=failure)
        error = failure
        try:
            await self._send(
                lambda: self._handle.fail(
                    error, last_heartbeat_details=self._details(), rpc_timeout=_RPC_TIMEOUT
                )
            )
        except Exception as exc:  # noqa: BLE001 - a data converter may raise anything
            _logger.warning(
                "the failure of %s cannot be encoded, so that Temporal repeats it after its "
                "timeout: %s",
                self._name,
                exc,
            )

    async def _send(self, report: Callable[[], Awaitable[None]]) -> None:
        """Send the end to Temporal, and try again while it is unreachable."""

        async def send() -> None:
            try:
                await report()
            except RPCError as exc:
                raise rpc_error(exc, f"report the end of {self._name}") from exc

        try:
            await RetryPolicy(deadline_seconds=_REPORT_SECONDS).run(send)
        except StreamNotFoundError:
            _logger.debug("the end of %s came too late", self._name)
        except StreamqError as exc:
            _logger.warning("%s; Temporal repeats it after its timeout", exc)


def _handle_of(client: Client, info: activity.Info) -> AsyncActivityHandle:
    context = ActivitySerializationContext(
        namespace=info.namespace,
        activity_id=info.activity_id,
        activity_type=info.activity_type,
        activity_task_queue=info.task_queue,
        workflow_id=info.workflow_id,
        workflow_type=info.workflow_type,
        is_local=False,
    )
    return client.get_async_activity_handle(task_token=info.task_token).with_context(context)


def _interruption(
    cancelled: ActivityCancellationDetails | None, *, is_released: bool
) -> ApplicationError:
    """Return the failure of an attempt that another one follows, as the SDK names it."""
    if cancelled is not None and (cancelled.paused or cancelled.reset):
        kind = "ActivityPause" if cancelled.paused else "ActivityReset"
        return ApplicationError("it was interrupted while it waited", type=kind)
    if is_released:
        return _shut_down()
    return ApplicationError("it was cancelled, and not by Temporal", type="CancelledError")


def _shut_down() -> ApplicationError:
    return ApplicationError(
        "the worker on which it waited has shut down",
        type="WorkerShutdown",
        next_retry_delay=_AT_ONCE,
        category=ApplicationErrorCategory.BENIGN,
    )


def _is_benign(failure: Exception) -> bool:
    return (
        isinstance(failure, ApplicationError)
        and failure.category is ApplicationErrorCategory.BENIGN
    )
