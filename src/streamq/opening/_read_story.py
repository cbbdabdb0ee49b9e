"""Reads the story of a stream by name: its last attempt as it is stored now, in one call.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import contextlib

from streamq._errors import ConfigurationError, StreamNotFoundError
from streamq._events import StreamId
from streamq._settings import Settings, load_settings
from streamq.driver import ChunkQueue
from streamq.over_http._token import Token
from streamq.reading._story import (
    DEFAULT_STORY_BYTES,
    Story,
    collect_story,
    find_last_attempt,
    no_story,
)
from streamq.reading._tail import read_tail
from streamq.records._codec import Codec
from streamq.records._values import Serializer, T

from ._open import open_queue_for, open_reader, retry_policy


async def read_story(
    stream: str | StreamId,
    *,
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    must_exist: bool = True,
    gaps_as_events: bool = False,
    max_bytes: int = DEFAULT_STORY_BYTES,
    value_type: type[T] | None = None,
    serializer: Serializer[T] | None = None,
    codec: Codec | None = None,
    token: Token | None = None,
) -> Story[T]:
    """Return the last attempt of a stream as it is stored now, with its state.

    It ends also while the stream is open and its producer is quick: it reads up to the newest event
    of the moment when it was called. Attempts that a reset has voided are read and not kept. An
    attempt that resumed or replays an earlier one has the chunks of both.

    Args:
        stream: Name within the configured tenant, a full identity, or an address on a gateway, as
            for :func:`open_reader`.
        queue: An open queue to use; it stays open. By default one is opened and closed.
        settings: Limits and defaults; by default those that are configured.
        must_exist: Refuse a stream that does not exist. With ``False`` its story is empty and OPEN,
            its ``attempt`` 0, and its cursor that of the beginning.
        gaps_as_events: Accept that events of the last attempt are no longer stored, and return
            which as ``gaps``, instead of raising.
        max_bytes: Most bytes of the last attempt, counting 100 more for each chunk.
        value_type: Type that every value is validated as, where it is asked for.
        serializer: Decodes values, as for :func:`open_reader`.
        codec: The writer's codec, as for :func:`open_reader`.
        token: For an address on a gateway, as for :func:`open_reader`.

    Raises:
        StreamNotFoundError: ``must_exist`` and it does not; or it was deleted meanwhile.
        StoryTooLargeError: The last attempt has more than ``max_bytes``.
        TrimmedError: Events of the last attempt are no longer stored, and this is not accepted.
        CapabilityError: The backend has no replay: reading would take away what the one reader
            waits for.
        StreamqError: As for :meth:`StreamReader.read_batch` and :func:`open_queue`.

    Cancellation: everything is released.
    """
    if max_bytes <= 0:
        raise ConfigurationError(f"max_bytes must be positive, not {max_bytes}")
    chosen = settings or load_settings()
    opening = open_queue_for(stream, queue, token, chosen)
    async with (
        opening if queue is None else contextlib.nullcontext(queue) as used,
        open_reader(
            stream,
            queue=used,
            settings=chosen,
            gaps_as_events=True,
            value_type=value_type,
            serializer=serializer,
            codec=codec,
            require=["replay"],
        ) as reader,
    ):
        identity = reader.stream
        try:
            tail = await read_tail(used, identity, retry_policy(chosen, used, identity))
        except StreamNotFoundError as exc:
            if not must_exist:
                return no_story(identity, reader.cursor)
            raise StreamNotFoundError(
                f"there is no stream {identity}; must_exist=False returns an empty story instead",
                backend=used.backend,
                stream=str(identity),
            ) from exc
        return await collect_story(
            reader,
            tail.status,
            max_bytes=max_bytes,
            gaps_as_events=gaps_as_events,
            patience_seconds=chosen.operation_seconds,
        )


async def last_attempt_cursor(
    stream: StreamId, *, queue: ChunkQueue, settings: Settings | None = None
) -> str:
    """Return the place after the last reset that is stored, or the beginning if there is none.

    A reader that begins there delivers no chunk that a stored reset has voided. The stream is read
    for it if it has several attempts; nothing of it is kept.

    Raises:
        StreamNotFoundError: It does not exist.
        StreamqError: As for :func:`read_story`.
    """
    chosen = settings or load_settings()
    opening = open_reader(
        stream, queue=queue, settings=chosen, gaps_as_events=True, require=["replay"]
    )
    async with opening as reader:
        tail = await read_tail(queue, stream, retry_policy(chosen, queue, stream))
        return await find_last_attempt(
            reader, tail.status, patience_seconds=chosen.operation_seconds
        )
