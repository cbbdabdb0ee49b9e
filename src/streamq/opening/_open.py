"""Opens queues by configuration, and writers and readers by stream name.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal, Unpack, overload

from streamq._errors import (
    ConfigurationError,
    ThrottledError,
)
from streamq._events import Gap, StreamId, user_stream
from streamq._retry import RetryPolicy
from streamq._settings import Settings, build, check_variables, load_settings
from streamq.calling import _calls as calling
from streamq.calling._drivers import open_driver
from streamq.calling._queues import check_queue
from streamq.driver import AnyDriver, ChunkQueue, DriverSettings, QueueOptions, close_all
from streamq.over_http._address import is_gateway_url
from streamq.over_http._queue import GatewayQueue
from streamq.over_http._token import Token
from streamq.quotas._writers import WriterQuota
from streamq.reading._reader import StreamReader
from streamq.reading._start import given_cursor, start_cursor
from streamq.reading._tail import StreamStatus, read_tail
from streamq.records._codec import Codec
from streamq.records._values import PLAIN, Serializer, T
from streamq.writing._epochs import clock_epoch
from streamq.writing._fence import Fence
from streamq.writing._outbox import Outbox
from streamq.writing._owner import current_owner
from streamq.writing._policies import OnFull, OnRetry
from streamq.writing._replay import durable_fingerprints
from streamq.writing._takeover import take_over
from streamq.writing._writer import StreamWriter
from streamq.writing._writer_options import WriterOptions

from ._data_converter import configured_conversion
from ._drivers import installed_drivers, load_driver
from ._gateway import names_gateway, open_gateway, refuse_token, stream_at
from ._opening import Opening
from ._opening_record import (
    check_policies,
    checked_producer,
    largest_record,
    opening_record,
)
from ._reader_options import ReaderOptions
from ._requirements import check_capabilities


def open_queue(settings: Settings | None = None) -> Opening[ChunkQueue]:
    """Connect to the configured backend.

    Args:
        settings: The settings in effect; by default read from the environment, ``.env`` and
            ``streamq.toml``.

    Raises:
        ConfigurationError: A setting is unknown or invalid, or the backend is not installed.
        ThrottledError: It accepted no requests for ``STREAMQ_RETRY_SECONDS``.
        BackendUnavailableError: It cannot be reached. Not retried, so that a wrong address is
            reported at once.
        AccessDeniedError: It refuses our credentials.
    """

    async def opener() -> ChunkQueue:
        chosen = settings or load_settings()
        driver, options, driver_settings = configured_driver(chosen)
        policy = RetryPolicy(deadline_seconds=chosen.retry_seconds)
        opening = partial(open_driver, driver, options, driver_settings)
        return await policy.run(opening, only=ThrottledError)

    return Opening(opener, close=calling.close)


def configured_driver(settings: Settings) -> tuple[AnyDriver, QueueOptions, DriverSettings]:
    """Return the configured driver, and the options and settings to open its queues with.

    Raises:
        ConfigurationError: A setting is unknown or invalid, or the backend is not installed.
    """
    driver = load_driver(settings.backend)
    check_variables(settings, driver.settings_type, installed_drivers())
    return driver, QueueOptions(ttl=settings.ttl), build(driver.settings_type)


def open_writer(
    stream: str | StreamId,
    *,
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    epoch: int | None = None,
    on_retry: OnRetry = OnRetry.RESTART,
    on_full: OnFull = OnFull.BLOCK,
    producer: str = "",
    headers: Mapping[str, str] | None = None,
    seals_failures: bool = True,
    serializer: Serializer[Any] = PLAIN,
    codec: Codec | None = None,
    require: Collection[str] = (),
) -> Opening[StreamWriter]:
    """Open a stream for writing as a new attempt, which fences every older one.

    The stream is created here if it does not exist. In order: the attempt is announced, which
    keeps older ones from storing anything more; then the tail is read; chunks are numbered from it.

    Args:
        stream: Name within the configured tenant, or a full identity.
        queue: An open queue to use; it stays open. By default one is opened, and closed with the
            writer.
        settings: Limits and defaults; by default those that are configured.
        epoch: Place of this attempt among all runs of the producer: larger is newer. By default
            the wall clock in microseconds, or one more than the stream's newest, so that the writer
            that opens the stream last wins whatever the hosts' clocks show.
        on_retry: How this attempt continues the stream if an earlier one wrote to it.
        on_full: What ``send_chunk`` does while ``STREAMQ_BUFFER_BYTES`` are not acknowledged yet.
        producer: Name of the producer, at most 2,000 bytes, stored with the seal. A writer that
            finds the stream sealed gets it in ``SealedError.producer``.
        headers: Names and values for readers, delivered in ``StreamReader.headers``; at most
            3,000 bytes in all, counting 4 more for each. A codec does not encrypt them.
        seals_failures: Whether leaving ``async with`` by an exception seals the stream and closes
            the writer. Pass ``False`` where something else decides whether there is a next attempt.
        serializer: Encodes values.
        codec: Encodes every record on its way to the backend; readers need the same one.
        require: Names of capabilities without which the backend is refused.

    Raises:
        FencedError: A newer attempt has opened the stream already.
        SealedError: The stream has ended.
        CapabilityError: The backend lacks a required capability.
        QuotaError: The tenant has as many writers in this process as its quota permits.
        ConfigurationError: As for :func:`open_queue`; or the name is not usable; or ``OnFull.DROP``
            is combined with ``OnRetry.REPLAY``.
    """

    async def opener() -> StreamWriter:
        chosen = settings or load_settings()
        identity = stream_id(stream, chosen)
        check_policies(on_retry, on_full)
        opening = opening_record(clock_epoch() if epoch is None else epoch, on_retry, headers)
        whole_producer = checked_producer(producer)
        if (owner := current_owner.get()) is not None:
            await owner.opens(identity)
        quota = WriterQuota.take(identity, chosen)
        options = WriterOptions.from_settings(
            chosen,
            on_full=on_full,
            serializer=serializer,
            codec=codec,
            seals_failures=seals_failures,
            quota=quota,
        )
        with contextlib.ExitStack() as held:
            held.callback(quota.release)
            async with _using(queue, open_queue(chosen)) as (used, on_close):
                check_capabilities(used, require)
                retry = retry_policy(chosen, used, identity)
                max_record_bytes = largest_record(used, codec)
                beginning = await take_over(
                    used, identity, opening, retry, is_by_clock=epoch is None, ttl=options.ttl
                )
                number = beginning.progress.epoch
                durable = None
                if on_retry is OnRetry.REPLAY:
                    durable = await durable_fingerprints(used, identity, number, retry, codec)
                outbox = Outbox(
                    beginning.progress,
                    stream=identity,
                    restarts=opening.restarts,
                    needs_reset=beginning.needs_reset,
                    max_record_bytes=max_record_bytes,
                    durable=durable,
                    producer=whole_producer,
                    holds_back=options.holds_back,
                )
                fence = None
                if not used.capabilities.fenced:
                    seconds = chosen.cancel_seconds
                    fence = Fence(used, identity, number, seconds=seconds, retry=retry)
            held.pop_all()  # the writer releases it at its end
        return StreamWriter(
            used,
            identity,
            outbox,
            options,
            retry=retry,
            fence=fence,
            on_close=on_close,
        )

    return Opening(opener)


@overload
def open_reader(
    stream: str | StreamId,
    *,
    gaps_as_events: Literal[False] = ...,
    value_type: type[T] | None = ...,
    serializer: Serializer[T] | None = ...,
    **options: Unpack[ReaderOptions],
) -> Opening[StreamReader[T]]: ...
@overload
def open_reader(
    stream: str | StreamId,
    *,
    gaps_as_events: bool,
    value_type: type[T] | None = ...,
    serializer: Serializer[T] | None = ...,
    **options: Unpack[ReaderOptions],
) -> Opening[StreamReader[T, Gap]]: ...
def open_reader(
    stream: str | StreamId,
    *,
    from_: Literal["beginning", "last", "tail"] | str = "beginning",
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    must_exist: bool = False,
    gaps_as_events: bool = False,
    idle_seconds: float | None = None,
    value_type: type[T] | None = None,
    serializer: Serializer[T] | None = None,
    codec: Codec | None = None,
    commits: bool = True,
    require: Collection[str] = (),
    token: Token | None = None,
) -> Opening[StreamReader[T, Gap]] | Opening[StreamReader[T]]:
    """Open a stream for reading.

    Args:
        stream: Name within the configured tenant, or a full identity. Or an address on a gateway,
            ``https://streams.example.org/events/NAME``: the stream is then read through it, as by
            :func:`open_gateway`, and no backend is needed here.
        from_: ``"beginning"``; ``"last"`` for the latest value and everything after it;
            ``"tail"`` for events after this moment; or a cursor that an earlier reader of this
            stream returned. ``"last"`` and ``"tail"`` are resolved once, here. The latest value is
            the newest chunk, unless a reset has voided it: then, as for a stream without a chunk,
            ``"last"`` is ``"tail"``.
        queue: An open queue to use; it stays open. By default one is opened, and closed with the
            reader.
        settings: Limits and defaults; by default those that are configured.
        must_exist: Refuse a stream that does not exist, instead of waiting for it.
        gaps_as_events: Deliver :class:`Gap` where events are no longer stored, instead of raising.
        idle_seconds: Deadline for the next event when iterating; by default the configured one.
        value_type: Type that every value is validated as: a pydantic model, a dataclass, a plain
            type.
        serializer: Decodes values; by default the converter of ``STREAMQ_DATA_CONVERTER``, and
            without one text, bytes and JSON are. What cannot be decoded raises where its ``value``
            is asked for, and delays no other event.
        codec: The writer's codec, if it has one; by default that of ``STREAMQ_DATA_CONVERTER``.
        commits: On backends without replay, whether delivered events are acknowledged when more
            are requested. With ``False`` the reader delivers the events of one read only, and a
            later reader that begins at its cursor acknowledges them: for callers that store the
            cursor first.
        require: Names of capabilities without which the backend is refused.
        token: For an address on a gateway: the token, or a function that returns one whenever
            another one is needed; see :func:`open_gateway`.

    Raises:
        StreamNotFoundError: ``must_exist`` and it does not.
        CursorError: The cursor is malformed or belongs to another stream.
        CapabilityError: The backend lacks a required capability.
        ConfigurationError: As for :func:`open_queue` or :func:`open_gateway`, or the name is not
            usable.
    """

    async def opener() -> StreamReader[T, Gap]:
        chosen = settings or load_settings()
        opening = open_queue_for(stream, queue, token, chosen)
        async with _using(queue, opening) as (used, on_close):
            identity = stream_id(stream, chosen, used)
            given = given_cursor(from_, identity)
            configured, its_codec = configured_conversion(chosen, identity, value_type)
            check_capabilities(used, require)
            retry = retry_policy(chosen, used, identity)
            cursor = await start_cursor(
                used, identity, from_, retry, given=given, must_exist=must_exist
            )
        return StreamReader(
            used,
            identity,
            cursor,
            idle_seconds=chosen.idle_seconds if idle_seconds is None else idle_seconds,
            retry=retry,
            serializer=serializer or configured,
            codec=codec or its_codec,
            commits=commits,
            gaps_as_events=gaps_as_events,
            on_close=on_close,
        )

    return Opening(opener)


async def describe(
    stream: str | StreamId, *, queue: ChunkQueue, settings: Settings | None = None
) -> StreamStatus:
    """Return the status of a stream: attempt, newest offset, ending, size.

    Raises:
        StreamNotFoundError: It does not exist, or has expired.
        BackendUnavailableError: The backend stayed unreachable for the retry deadline.
    """
    check_queue(queue)
    chosen = settings or load_settings()
    identity = stream_id(stream, chosen, queue)
    retry = retry_policy(chosen, queue, identity)
    return (await read_tail(queue, identity, retry)).status


def retry_policy(
    settings: Settings, queue: ChunkQueue, stream: StreamId | None = None
) -> RetryPolicy:
    """Return how calls to the backend are retried and bounded."""
    return RetryPolicy(
        deadline_seconds=settings.retry_seconds,
        call_seconds=settings.operation_seconds,
        backend=queue.backend,
        stream=None if stream is None else str(stream),
    )


def stream_id(
    stream: str | StreamId, settings: Settings, queue: ChunkQueue | None = None
) -> StreamId:
    """Return the identity of a stream given by name, or by its address on a gateway.

    Args:
        stream: The stream.
        settings: They name the tenant, unless a gateway does.
        queue: The queue that it is read from, if that is open.

    Raises:
        ConfigurationError: The name or the tenant is not usable.
    """
    try:
        if isinstance(stream, StreamId):
            return user_stream(stream.tenant, stream.name)
        if isinstance(queue, GatewayQueue):
            if is_gateway_url(stream):
                return stream_at(stream, queue)
            return user_stream(queue.tenant, stream)
        return user_stream(settings.tenant, stream)
    except ValueError as exc:
        raise ConfigurationError(str(exc)) from None


def open_queue_for(
    stream: str | StreamId, queue: ChunkQueue | None, token: Token | None, settings: Settings
) -> Opening[ChunkQueue]:
    """Return what opens the queue to read a stream with, if none is given.

    Raises:
        ConfigurationError: The stream is not usable, or there is a token for something else.
    """
    if isinstance(stream, str) and names_gateway(stream, queue):
        return open_gateway(stream, token=token, settings=settings)
    refuse_token(token)
    stream_id(stream, settings, queue)
    return open_queue(settings)


@contextlib.asynccontextmanager
async def _using(
    queue: ChunkQueue | None, opening: Opening[ChunkQueue]
) -> AsyncIterator[tuple[ChunkQueue, Callable[[], Awaitable[None]] | None]]:
    """Yield the queue to use and the function that closes it; ``None`` if it is the caller's queue.

    A queue that is opened here outlives the block, unless the block fails.
    """
    if queue is not None:
        check_queue(queue)
        yield queue, None
        return
    owned = await opening
    close = partial(calling.close, owned)
    try:
        yield owned, close
    except BaseException:
        await close_all(close)
        raise
