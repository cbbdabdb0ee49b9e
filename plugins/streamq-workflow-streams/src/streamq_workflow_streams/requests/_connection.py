"""Connects to Temporal, makes calls with a deadline, and connects anew when a server refuses us."""

from __future__ import annotations

import asyncio
import math
import time
import traceback
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Concatenate, TypeAlias, TypeVar

from temporalio.client import Client
from temporalio.service import (
    KeepAliveConfig,
    RetryConfig,
    RPCError,
    RPCStatusCode,
    WorkflowService,
)

from streamq.driver import (
    BackendUnavailableError,
    Guard,
    StreamId,
    StreamqError,
    TemporalEndpoint,
)
from streamq_workflow_streams._errors import (
    BACKEND,
    about_server,
    connecting_anew,
    is_silence,
    no_answer,
    to_streamq,
)
from streamq_workflow_streams._settings import WorkflowStreamsSettings

T = TypeVar("T")
Rpc: TypeAlias = Callable[Concatenate[WorkflowService, ...], Awaitable[T]]
"""A method of the SDK's workflow service, such as ``WorkflowService.query_workflow``."""

_MARGIN_SECONDS = 0.5
_RENEWAL_SECONDS = 1.0  # between two connections that are made because the server refuses us
_REFUSED_SECONDS = 10.0  # a call that has worked may be refused for as long, while a key is rotated


class _Client:
    """One connection: the SDK's client, and the calls that are under way on it."""

    def __init__(self, client: Client) -> None:
        # Read once: closing takes them away from the client.
        self.service = client.workflow_service
        self.identity = client.service_client.config.identity
        self.made_at = self.answered_at = time.monotonic()
        self.running: dict[asyncio.Future[Any], bool] = {}
        """Calls that are under way, and whether each one is a long poll."""
        self._client = client
        self._is_retired = False

    def retire(self) -> None:
        """Let go of the connection once no call is under way; end its long polls now."""
        self._is_retired = True
        for each, is_long_poll in tuple(self.running.items()):
            if is_long_poll:
                each.cancel()
        self._let_go()

    def close(self) -> None:
        """Cancel every call and let go of the connection."""
        for each in tuple(self.running):
            each.cancel()
        vars(self._client.service_client).clear()

    def forget(self, running: asyncio.Future[Any]) -> None:
        """Take note that a call has ended."""
        self.running.pop(running, None)
        if not running.cancelled():
            running.exception()  # the caller may have gone, and asyncio would warn
        if self._is_retired:
            self._let_go()

    def _let_go(self) -> None:
        # The SDK closes a connection when its objects are collected, and they refer to each other.
        if not self.running:
            vars(self._client.service_client).clear()


class TemporalConnection:
    """Calls of one queue to a Temporal server. Every method raises errors of streamq only.

    An answer that speaks of the server and not of the call (it refuses our credentials, does not
    serve the namespace any more, or does not answer at all) makes the connection anew, for all
    calls: name, key and certificates are read again. Long polls on the old one end and are repeated
    there. The call itself is not repeated here: it raises an error that is retried.

    Args:
        client: The SDK's client.
        settings: The driver's settings.
        endpoint: Where and how the client connects.

    Attributes:
        guard: Refuses calls once closed, and ends pauses.
    """

    def __init__(
        self, client: Client, settings: WorkflowStreamsSettings, endpoint: TemporalEndpoint
    ) -> None:
        self._current = _Client(client)
        self._retired: list[_Client] = []
        self._settings = settings
        self._endpoint = endpoint
        self.guard = Guard(BACKEND, seconds=math.inf)
        self._renewing = asyncio.Lock()
        self._refused_since: float | None = None
        self._worked: set[str] = set()

    @property
    def identity(self) -> str:
        """The name under which Temporal shows requests of this queue."""
        return self._current.identity

    async def call(
        self,
        rpc: Rpc[T],
        request: object,
        *,
        stream: StreamId | None = None,
        seconds: float | None = None,
        is_long_poll: bool = False,
    ) -> T:
        """Make one call.

        Args:
            rpc: The SDK's method.
            request: Its message.
            stream: Stream that the call is about, if it is about one.
            seconds: Longest time to wait for the answer; by default that of the settings.
            is_long_poll: Whether the call may be repeated on another connection at any time.

        Raises:
            StreamNotFoundError: There is no running workflow as the request names it.
            HostBusyError: Temporal takes no more of these calls now.
            AccessDeniedError: Temporal refuses us, also on a new connection, and has refused this
                kind of call from the beginning, or for ten seconds.
            BackendUnavailableError: There is no answer in time, or Temporal cannot serve now, or
                the connection is being made anew.
            ClosedError: The queue is closed, also while the call is under way.
        """
        self.guard.check(stream)
        name = None if stream is None else str(stream)
        limit = seconds or self._settings.operation_timeout_seconds
        client = self._current
        running = asyncio.ensure_future(
            rpc(client.service, request, retry=False, timeout=timedelta(seconds=limit))
        )
        client.running[running] = is_long_poll
        running.add_done_callback(client.forget)
        kind = getattr(rpc, "__name__", "")
        try:
            async with asyncio.timeout(limit + _MARGIN_SECONDS):
                # Cancelling the caller does not cancel the call: if an update is withdrawn before
                # a worker has seen it, the server delays the workflow's next update for seconds.
                answer = await asyncio.shield(running)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self.guard.check(stream)
            raise connecting_anew(self._endpoint.address, name) from None
        except TimeoutError as exc:
            running.cancel()
            await self._check_silence(client, limit)
            raise no_answer(self._endpoint.address, limit, name) from exc
        except RuntimeError as exc:
            error = self._endpoint.error(exc, backend=BACKEND)
            raise await self._refused(client, error, has_worked=bool(self._worked)) from exc
        except RPCError as exc:
            _clear_frames(exc)
            error = to_streamq(exc, self._endpoint.address, name)
            if about_server(exc):
                has_worked = bool(self._worked)
                if exc.status is RPCStatusCode.PERMISSION_DENIED and not is_long_poll:
                    has_worked = kind in self._worked  # it may be missing for this kind only
                raise await self._refused(client, error, has_worked=has_worked) from exc
            if is_silence(exc):
                await self._check_silence(client, limit)
            else:
                client.answered_at = time.monotonic()
            raise error from exc
        finally:
            del running
        client.answered_at = time.monotonic()
        self._worked.add(kind)
        self._refused_since = None
        return answer

    async def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            ClosedError: The queue was closed meanwhile.
        """
        async with self.guard():
            await asyncio.sleep(seconds)

    def close(self) -> None:
        """Cancel all calls that are under way. Idempotent."""
        self.guard.close()
        for each in self._all():
            each.close()

    async def gone(self) -> None:
        """Wait until no call is under way."""
        running = [each for client in self._all() for each in client.running]
        if running:
            await asyncio.wait(running)

    # -- inside --------------------------------------------------------------------------------

    def _all(self) -> list[_Client]:
        return [self._current, *self._retired]

    async def _refused(
        self, client: _Client, error: StreamqError, *, has_worked: bool
    ) -> StreamqError:
        """Connect anew after an answer that speaks of the server; return the error to raise."""
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        used = self._endpoint
        is_provisional = client is not self._current or (
            has_worked and now - self._refused_since < _REFUSED_SECONDS
        )
        await self._renew(client)
        if (is_provisional or self._endpoint != used) and not error.retryable:
            return BackendUnavailableError(
                f"{error.message}; connecting anew, with key and certificates read again",
                backend=BACKEND,
                stream=error.stream,
            )
        return error

    async def _check_silence(self, client: _Client, seconds: float) -> None:
        """Connect anew if no call got an answer on this connection for the time that one waits."""
        if time.monotonic() - max(client.answered_at, client.made_at) >= seconds:
            await self._renew(client)

    async def _renew(self, client: _Client) -> None:
        """Replace a connection, unless that has been done, or was done just before."""
        async with self._renewing:
            is_new = time.monotonic() - client.made_at < _RENEWAL_SECONDS
            if client is not self._current or is_new or self.guard.is_closed:
                return
            try:
                endpoint = self._settings.target.resolve()
                renewed = _Client(await make_client(endpoint))
            except StreamqError:
                return  # a file is being replaced; the next refusal tries again
            self._retired = [each for each in self._retired if each.running]
            self._retired.append(client)
            self._current, self._endpoint = renewed, endpoint
            client.retire()


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
