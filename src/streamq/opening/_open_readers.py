"""Opens many streams for reading in one iteration: by name, and by the beginning of their names.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypedDict, Unpack, overload

from streamq._errors import (
    CapabilityError,
    ConfigurationError,
    CursorError,
    StreamqError,
)
from streamq._events import Gap, StreamId
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.calling._queues import check_queue
from streamq.driver import ChunkQueue, close_all, together
from streamq.over_http._queue import GatewayQueue
from streamq.over_http._token import Token
from streamq.reading._prefixes import PrefixWatch
from streamq.reading._reader import StreamReader
from streamq.reading._readers import StreamReaders
from streamq.reading._start import given_cursor, start_cursor
from streamq.records._codec import Codec
from streamq.records._values import Serializer, T

from ._data_converter import configured_conversion
from ._gateway import refuse_token
from ._open import open_queue, open_queue_for, retry_policy, stream_id
from ._opening import Opening
from ._requirements import check_capabilities

MAX_STREAMS = 1_000
"""Most streams that are read at once unless the caller says another number."""

_READ_BYTES = 131_072  # of each stream; less than for a single one, since there are many
_OPENED_AT_ONCE = 16
_MISTAKES = (ConfigurationError, CursorError, CapabilityError)

Conversion = Callable[[StreamId], tuple[Serializer[T], Codec | None]]
"""Returns what decodes the values and the records of a stream."""


class ReadersOptions(TypedDict, total=False):
    """Options of :func:`open_readers`, where they are described, that do not change its type."""

    prefixes: Sequence[str]
    from_: Literal["beginning", "last", "tail"] | Mapping[str, str] | Mapping[StreamId, str]
    queue: ChunkQueue | None
    settings: Settings | None
    must_exist: bool
    idle_seconds: float | None
    list_seconds: float
    max_streams: int
    codec: Codec | None
    require: Collection[str]
    token: Token | None


@overload
def open_readers(
    streams: Sequence[str | StreamId] = ...,
    *,
    gaps_as_events: Literal[False] = ...,
    value_type: type[T] | None = ...,
    serializer: Serializer[T] | None = ...,
    **options: Unpack[ReadersOptions],
) -> Opening[StreamReaders[T]]: ...
@overload
def open_readers(
    streams: Sequence[str | StreamId] = ...,
    *,
    gaps_as_events: bool,
    value_type: type[T] | None = ...,
    serializer: Serializer[T] | None = ...,
    **options: Unpack[ReadersOptions],
) -> Opening[StreamReaders[T, Gap]]: ...
def open_readers(
    streams: Sequence[str | StreamId] = (),
    *,
    prefixes: Sequence[str] = (),
    from_: Literal["beginning", "last", "tail"]
    | Mapping[str, str]
    | Mapping[StreamId, str] = "beginning",
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    must_exist: bool = False,
    gaps_as_events: bool = False,
    idle_seconds: float | None = None,
    list_seconds: float = 5.0,
    max_streams: int = MAX_STREAMS,
    value_type: type[T] | None = None,
    serializer: Serializer[T] | None = None,
    codec: Codec | None = None,
    require: Collection[str] = (),
    token: Token | None = None,
) -> Opening[StreamReaders[T, Gap]] | Opening[StreamReaders[T]]:
    """Open many streams for reading in one iteration, over one queue.

    Use it as ``async with open_readers(["a", "b"]) as readers:`` and iterate: each item names its
    stream and has an event of it. One stream's failure is an item, and ends that stream only.

    Args:
        streams: Names within the configured tenant, or full identities. A stream may be to come.
        prefixes: Read all streams of the configured tenant whose name begins so, too, and those
            that begin later. They are found by a list, here and every ``list_seconds``; each is
            announced by :class:`StreamFound`. Needs a backend with replay.
        from_: Where to begin, as for :func:`open_reader`, for all streams; or a mapping of cursors,
            as ``readers.cursors`` is: a stream that is not in it is read from its beginning, as is
            one that begins after this moment.
        queue: An open queue to use; it stays open. By default one is opened, and closed with the
            readers.
        settings: Limits and defaults; by default those that are configured.
        must_exist: A named stream that does not exist is a failure, instead of being waited for.
        gaps_as_events: Deliver :class:`Gap` where events are no longer stored; otherwise that is a
            failure of the stream.
        idle_seconds: Deadline for the next event of each stream, counted from when the iteration
            came back after its last one; by default the configured one. A stream on which nothing
            arrives fails with ``IdleTimeoutError``, whatever arrives on others. ``math.inf`` waits
            for ever.
        list_seconds: Interval of the lists, in seconds. Each costs what ``streamq ls`` costs.
        max_streams: Most streams that are read at once. Each takes some 100 KiB of memory while it
            has much to catch up.
        value_type: Type that every value of every stream is validated as.
        serializer: Decodes values, as for :func:`open_reader`.
        codec: The writers' codec, as for :func:`open_reader`.
        require: Names of capabilities without which the backend is refused.
        token: As for :func:`open_reader`, where the first stream is an address on a gateway: the
            others then are addresses or names there.

    Raises:
        CursorError: A cursor is malformed or belongs to another stream.
        CapabilityError: The backend lacks a required capability, or replay, and there are prefixes
            or ``from_`` is a place that has to be looked for.
        AccessDeniedError: The backend does not let us list streams, and there are prefixes.
        ConfigurationError: As for :func:`open_queue`; or a name is not usable; or there are more
            streams than ``max_streams``.
        StreamqError: As for :func:`open_queue`, and where streams cannot be listed.
    """

    async def opener() -> StreamReaders[T, Gap]:
        chosen = settings or load_settings()

        def convert(stream: StreamId) -> tuple[Serializer[T], Codec | None]:
            configured, its_codec = configured_conversion(chosen, stream, value_type)
            return serializer or configured, codec or its_codec

        _check(streams, prefixes, list_seconds, max_streams, idle_seconds)
        if queue is not None or not streams:
            refuse_token(token)
        if queue is not None:
            used = queue
        elif streams:
            used = await open_queue_for(streams[0], queue, token, chosen)
        else:
            used = await open_queue(chosen)
        close = partial(calling.close, used) if queue is None else None
        try:
            check_queue(used)
            check_capabilities(used, [*require, *(["replay"] if prefixes else [])])
            return await begin_readers(
                used,
                [stream_id(each, chosen, used) for each in streams],
                chosen,
                convert,
                prefixes=prefixes,
                from_=from_,
                must_exist=must_exist,
                gaps_as_events=gaps_as_events,
                idle_seconds=chosen.idle_seconds if idle_seconds is None else idle_seconds,
                list_seconds=list_seconds,
                max_streams=max_streams,
                on_close=close,
            )
        except BaseException:
            if close is not None:
                await close_all(close)
            raise

    return Opening(opener)


def _check(
    streams: Sequence[str | StreamId],
    prefixes: Sequence[str],
    list_seconds: float,
    max_streams: int,
    idle_seconds: float | None,
) -> None:
    for name, given in (("streams", streams), ("prefixes", prefixes)):
        if isinstance(given, str):
            raise ConfigurationError(f"{name} is the text {given!r}; give a list: [{given!r}]")
    if not list_seconds > 0 or max_streams < 1:
        raise ConfigurationError(
            f"list_seconds and max_streams must be positive, not {list_seconds} and {max_streams}"
        )
    if idle_seconds is not None and not idle_seconds >= 0:
        raise ConfigurationError(f"idle_seconds must be 0 or more, not {idle_seconds}")


async def begin_readers(
    queue: ChunkQueue,
    streams: Sequence[StreamId],
    settings: Settings,
    convert: Conversion[T],
    *,
    prefixes: Sequence[str] = (),
    from_: str | Mapping[str, str] | Mapping[StreamId, str] = "beginning",
    must_exist: bool = False,
    gaps_as_events: bool = False,
    idle_seconds: float = math.inf,
    list_seconds: float = math.inf,
    max_streams: int = MAX_STREAMS,
    on_close: Any = None,
) -> StreamReaders[T, Gap]:
    """Begin to read streams over an open queue; see :func:`open_readers`.

    Raises:
        StreamqError: As for :func:`open_readers`; nothing is left, and ``on_close`` was called.
    """
    places: dict[StreamId, str] = {}
    default = "beginning"
    if isinstance(from_, str):
        default = from_
    else:
        places = {stream_id(each, settings, queue): cursor for each, cursor in from_.items()}

    async def open_one(stream: StreamId, place: str | None) -> StreamReader[T, Gap]:
        begin = place or default
        retry = retry_policy(settings, queue, stream)
        serializer, codec = convert(stream)
        cursor = await start_cursor(
            queue, stream, begin, retry, given=given_cursor(begin, stream), must_exist=must_exist
        )
        return StreamReader(
            queue,
            stream,
            cursor,
            idle_seconds=idle_seconds,
            retry=retry,
            serializer=serializer,
            codec=codec,
            gaps_as_events=gaps_as_events,
            read_bytes=_READ_BYTES,
        )

    readers: StreamReaders[T, Gap] = StreamReaders(
        queue,
        open_one,
        identify=partial(stream_id, settings=settings, queue=queue),
        idle_seconds=idle_seconds,
        max_streams=max_streams,
        places=places,
        goes_on=bool(prefixes),
        on_close=on_close,
    )
    try:
        await _begin_named(readers, streams)
        if prefixes:
            watch = PrefixWatch(
                readers,
                queue,
                queue.tenant if isinstance(queue, GatewayQueue) else settings.tenant,
                prefixes,
                list_seconds=list_seconds,
                retry_seconds=settings.retry_seconds,
            )
            retry = dataclasses.replace(retry_policy(settings, queue), call_seconds=math.inf)
            await retry.run(partial(watch.look, is_new=False))
            readers.own(watch.run(), "streamq-prefixes")
    except BaseException:
        await close_all(readers.aclose)
        raise
    return readers


async def _begin_named(readers: StreamReaders[Any, Any], streams: Sequence[StreamId]) -> None:
    """Begin to read streams, some at a time; one that cannot be opened is a failure of its own.

    Raises:
        StreamqError: The caller's mistake.
    """
    turns = asyncio.Semaphore(_OPENED_AT_ONCE)

    async def begin(stream: StreamId) -> None:
        async with turns:
            try:
                await readers.begin(stream)
            except _MISTAKES:
                raise
            except StreamqError as exc:
                readers.fail(stream, exc)

    await together(begin(stream) for stream in dict.fromkeys(streams))
