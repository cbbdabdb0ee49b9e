"""Runs a streaming activity for a test, as a worker would, and records what readers see of it.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.converter import DataConverter
from temporalio.worker import Interceptor
from typing_extensions import TypeVar

from streamq._settings import Settings
from streamq.driver import ChunkQueue
from streamq.testing._queue_faults import Fault

from ._recorded import Recorded
from ._script import CancelReason
from ._session import Session

if TYPE_CHECKING:
    from streamq.temporal.producer._activity_types import StreamingActivity

R = TypeVar("R", default=Any)
V = TypeVar("V")


class RecordOptions(TypedDict, total=False):
    """Options of :func:`record`, where they are described."""

    attempt: int
    position: int | None
    earlier: Sequence[Any] | None
    completion_lost: bool
    heartbeat_details: Sequence[Any]
    fail_after: int | Sequence[int | None] | None
    fail_with: BaseException | None
    cancel_after: int | Sequence[int | None] | None
    cancel_reason: CancelReason
    faults: Mapping[int, Fault | Exception]
    topic: str | None
    workflow_id: str
    retry_policy: RetryPolicy
    start_to_close_timeout: timedelta
    schedule_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    queue: ChunkQueue | None
    settings: Settings | None
    data_converter: DataConverter | None
    client: Client | None
    interceptors: Sequence[Interceptor]


@overload
async def record(
    activity: StreamingActivity[..., Awaitable[R], object],
    *positional: Any,
    args: Sequence[Any] = ...,
    **options: Unpack[RecordOptions],
) -> Recorded[Any, R]: ...
@overload
async def record(
    activity: StreamingActivity[..., Awaitable[R], V],
    *positional: Any,
    args: Sequence[Any] = ...,
    **options: Unpack[RecordOptions],
) -> Recorded[V, R]: ...
@overload
async def record(
    activity: StreamingActivity[..., R, object],
    *positional: Any,
    args: Sequence[Any] = ...,
    **options: Unpack[RecordOptions],
) -> Recorded[Any, R]: ...
@overload
async def record(
    activity: StreamingActivity[..., R, V],
    *positional: Any,
    args: Sequence[Any] = ...,
    **options: Unpack[RecordOptions],
) -> Recorded[V, R]: ...
@overload
async def record(
    activity: Callable[..., Any],
    *positional: Any,
    args: Sequence[Any] = ...,
    **options: Unpack[RecordOptions],
) -> Recorded[Any, Any]: ...
async def record(
    activity: Callable[..., Any],
    *positional: Any,
    args: Sequence[Any] = (),
    **options: Unpack[RecordOptions],
) -> Recorded[Any, Any]:
    """Run a streaming activity as a worker would, and return what readers see of it.

    ``recorded = await record(generate, "sea")``, and then ``assert recorded.chunks == [...]``. The
    SDK's own activity worker runs the function, with streamq's interceptor, on a stream in memory.
    So everything is as in production: conversion of arguments and result, the writers and their
    limits, threads, heartbeats, cancellation, what an exception means, how the stream ends. There
    is no server: a test takes milliseconds.

    A failure of the activity is not raised here: :attr:`Recorded.error` has it, and
    :attr:`Recorded.result` raises it.

    **Several attempts.** A list for ``fail_after`` or ``cancel_after`` has one item for each
    attempt; ``None`` lets an attempt alone. ``fail_after=[3, None]`` lets the first attempt fail
    after three chunks, and the second one continue as ``on_retry`` says.

    Cancelling this call cancels the activity and waits for it.

    Args:
        activity: The activity, decorated with :func:`streamq.temporal.streaming_activity`; of a
            class the bound method.
        positional: Its arguments.
        args: Its arguments, instead of ``positional``.
        options: All of them may be left out.

            ``attempt`` is the number of the first attempt that is recorded. What the one before did
            is stated by one of these, which make 2 the default: ``position=3`` runs the activity
            itself and lets it fail after three chunks; ``earlier=[...]`` are the values that it
            sent; ``completion_lost=True`` says that it sealed the stream, and Temporal did not
            learn of it. ``heartbeat_details`` are the details of its last heartbeat.

            ``fail_after=3`` raises ``fail_with`` (by default a :class:`ScriptedError`) in the call
            that would send the fourth chunk, or when the function returns.
            ``cancel_after=3`` stops the attempt when it has sent three chunks, for the reason
            ``cancel_reason``; it reaches the function where it waits next, in the fourth call of
            ``send_chunk`` at the latest. 0 stops it where it waits first. Chunks are those of the
            main stream, or of the first one.
            ``faults={3: ThrottledError("slow down")}`` are faults of the backend in the append
            that stores the third chunk, counted over all attempts: a :class:`Fault`, or an
            exception that is raised once.

            ``topic``, ``workflow_id``, ``retry_policy`` (by default attempts are not limited),
            ``start_to_close_timeout`` (a minute; then the attempt times out),
            ``schedule_to_close_timeout`` and ``heartbeat_timeout`` are what its workflow chose.

            ``queue`` is an open queue to write to, such as a :class:`FaultyQueue`. ``settings`` are
            by default those that are configured, without the backend. ``data_converter`` is by
            default that of ``client``, of ``STREAMQ_DATA_CONVERTER``, or the SDK's default.
            ``client`` is for activities that call Temporal; without it such calls fail.
            ``interceptors`` are the worker's others.

    Raises:
        TypeError: It is no streaming activity, or a method that is not bound.
        ValueError: Options contradict each other.
        AssertionError: The script did not happen: the activity sent fewer chunks, or Temporal runs
            no further attempt.
        StreamqError: The backend failed while an earlier attempt was prepared.
    """
    if positional and args:
        raise ValueError("pass the activity's arguments either one by one or as args=, not both")
    return await Session(activity, list(positional or args), options).run()
