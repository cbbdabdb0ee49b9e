"""Connects to Temporal, and makes calls with a deadline that closing the queue ends."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import Client
from temporalio.service import KeepAliveConfig, RetryConfig, RPCError

from streamq.driver import StreamId, TemporalEndpoint, closed_error
from streamq_workflow_streams._errors import BACKEND, no_answer, to_streamq
from streamq_workflow_streams._settings import WorkflowStreamsSettings

T = TypeVar("T")

_MARGIN_SECONDS = 0.5


class TemporalConnection:
    """Calls of one queue to a Temporal server. Every method raises errors of streamq only.

    Args:
        client: The SDK's client.
        settings: The driver's settings.
        endpoint: Where and how the client connects.

    Attributes:
        service: The SDK's methods of Temporal's workflow service.
        identity: The name under which Temporal shows requests of this client.
    """

    def __init__(
        self, client: Client, settings: WorkflowStreamsSettings, endpoint: TemporalEndpoint
    ) -> None:
        # Read once: closing takes them away from the client.
        self.service = client.workflow_service
        self.identity = client.service_client.config.identity
        self._client = client
        self._settings = settings
        self._endpoint = endpoint
        self._running: set[asyncio.Future[Any]] = set()
        self._closing = asyncio.Event()

    async def call(
        self,
        rpc: Callable[..., Awaitable[T]],
        request: object,
        *,
        stream: StreamId | None = None,
        seconds: float | None = None,
    ) -> T:
        """Make one call.

        Args:
            rpc: The SDK's method.
            request: Its message.
            stream: Stream that the call is about, if it is about one.
            seconds: Longest time to wait for the answer; by default that of the settings.

        Raises:
            StreamNotFoundError: There is no running workflow as the request names it.
            HostBusyError: Temporal takes no more of these calls now.
            BackendUnavailableError: There is no answer in time, or Temporal cannot serve now.
            ClosedError: The queue is closed, also while the call is under way.
        """
        self.check_open()
        name = None if stream is None else str(stream)
        limit = seconds or self._settings.operation_timeout_seconds
        running = asyncio.ensure_future(rpc(request, retry=False, timeout=timedelta(seconds=limit)))
        self._running.add(running)
        running.add_done_callback(self._forget)
        try:
            async with asyncio.timeout(limit + _MARGIN_SECONDS):
                # Cancelling the caller does not cancel the call: if an update is withdrawn before
                # a worker has seen it, the server delays the workflow's next update for seconds.
                return await asyncio.shield(running)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closing.is_set() and task is not None and not task.cancelling():
                raise closed_error(BACKEND) from None
            raise
        except TimeoutError as exc:
            running.cancel()
            raise no_answer(self._endpoint.address, limit, name) from exc
        except RuntimeError as exc:
            raise self._endpoint.error(exc, backend=BACKEND) from exc
        except RPCError as exc:
            _clear_frames(exc)
            raise to_streamq(exc, self._endpoint.address, name) from exc
        finally:
            del running

    async def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            ClosedError: The queue was closed meanwhile.
        """
        closed = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({closed}, timeout=seconds)
        finally:
            closed.cancel()
        self.check_open()

    def check_open(self) -> None:
        """Check that the queue is open.

        Raises:
            ClosedError: It is closed.
        """
        if self._closing.is_set():
            raise closed_error(BACKEND)

    def close(self) -> None:
        """Cancel all calls that are under way. Idempotent."""
        self._closing.set()
        for each in tuple(self._running):
            each.cancel()
        # The SDK closes a connection when its objects are collected, and they refer to each other.
        vars(self._client.service_client).clear()

    async def gone(self) -> None:
        """Wait until no call is under way."""
        if self._running:
            await asyncio.wait(self._running)

    def _forget(self, running: asyncio.Future[Any]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # the caller may have gone, and asyncio would warn


async def make_client(endpoint: TemporalEndpoint, *, for_worker: bool = False) -> Client:
    """Return a client.

    A client for a queue connects at its first call and does not retry calls. One for a worker is
    connected and retries calls.

    Raises:
        AccessDeniedError: Temporal refuses the worker.
        BackendUnavailableError: The client of a worker cannot connect.
    """
    return await endpoint.connect(
        retry_config=None if for_worker else RetryConfig(max_retries=1),
        keep_alive_config=KeepAliveConfig(interval_millis=5_000, timeout_millis=5_000),
        lazy=not for_worker,
    )


def _clear_frames(error: BaseException) -> None:
    """Break the reference cycle of an error and the SDK's frames, which keeps a connection open."""
    found: BaseException | None = error
    while found is not None:
        traceback.clear_frames(found.__traceback__)
        found = found.__cause__ or found.__context__
