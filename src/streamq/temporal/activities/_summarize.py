"""Runs ``streamq.summary``: counts a stream and computes a digest that others can recompute."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from temporalio import activity

from streamq._errors import StreamqError
from streamq._events import Chunk, Event, Reset, Seal
from streamq.opening._open import open_reader, stream_id
from streamq.temporal._failure import application_error
from streamq.temporal._input import takes

from ._context import ActivityContext, activity_context
from ._heartbeats import beating

SUMMARY_ACTIVITY = "streamq.summary"

_PATIENCE_SECONDS = 1.0
_LONGEST_BEAT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class SummaryRequest:
    """Which stream to count; plain JSON for other SDKs.

    Attributes:
        stream: Name of the stream, as :func:`stream_name` returns it.
    """

    stream: str


@dataclass(frozen=True, slots=True)
class StreamSummary:
    """Counts and digest of a stream's final content: the chunks after the last reset.

    Attributes:
        chunks: Number of chunks.
        bytes: Their bytes, as stored.
        attempts: Number of attempts whose events readers saw.
        resets: How often the stream started over.
        state: How it ended: ``END``, ``ERROR`` or ``CANCELLED``; ``None`` if it has not.
        digest: SHA-256 in hexadecimal over the final content: for each chunk the length of its
            bytes as 8 bytes, big-endian, and the bytes; text is UTF-8, JSON as it was stored.
            ``None`` if it was not computed.
    """

    chunks: int = 0
    bytes: int = 0
    attempts: int = 0
    resets: int = 0
    state: str | None = None
    digest: str | None = None


class Tally:
    """Counts a stream event by event.

    Args:
        before: Counts of earlier events; there is no digest then until the next reset.
    """

    def __init__(self, before: StreamSummary | None = None) -> None:
        self._digests = before is None
        before = before or StreamSummary()
        self._chunks, self._bytes = before.chunks, before.bytes
        self._attempts, self._resets = before.attempts, before.resets
        self._state = before.state
        self._hash = hashlib.sha256()

    def add(self, event: Event) -> None:
        """Count the next event."""
        if event.attempt:
            self._attempts = event.attempt  # dense, from 1
        if isinstance(event, Chunk):
            self._chunks += 1
            self._bytes += len(event.data)
            if self._digests:
                self._hash.update(len(event.data).to_bytes(8, "big"))
                self._hash.update(event.data)
        elif isinstance(event, Reset):
            self._resets += 1
            self._chunks = self._bytes = 0
            self._hash, self._digests = hashlib.sha256(), True
        elif isinstance(event, Seal):
            self._state = event.state.name

    def summary(self) -> StreamSummary:
        """Return the counts, and the digest, of the events so far."""
        return StreamSummary(
            self._chunks,
            self._bytes,
            self._attempts,
            self._resets,
            self._state,
            self._hash.hexdigest() if self._digests else None,
        )


@activity.defn(name=SUMMARY_ACTIVITY)
@takes(SummaryRequest)
async def summarize(request: SummaryRequest) -> StreamSummary:
    """Read a stream once from its beginning, and return its counts and digest.

    Ends at the seal, or after the last stored event: it does not wait for a producer, but follows
    one that does not pause. It keeps its activity slot, since it works and waits for nothing; so
    the slots limit how many run at once. It sends heartbeats and can be cancelled at any time;
    repeating it is harmless.

    Raises:
        ApplicationError: Its type is the name of the streamq error, such as ``TrimmedError``: the
            beginning is no longer stored.
    """
    reading = _summarize(request, activity_context())
    return await beating(reading, longest_seconds=_LONGEST_BEAT_SECONDS)


async def _summarize(request: SummaryRequest, context: ActivityContext) -> StreamSummary:
    try:
        return await _sum_up(request, context)
    except StreamqError as exc:
        raise application_error(exc) from exc


async def _sum_up(request: SummaryRequest, context: ActivityContext) -> StreamSummary:
    tally = Tally()
    stream = stream_id(request.stream, context.settings)
    async with open_reader(
        stream,
        queue=context.queue,
        settings=context.settings,
        codec=context.codec(stream),
        require=["replay"],
    ) as reader:
        while reader.seal is None:
            # Some backends return new records only after a moment.
            batch = await reader.read_batch(max_wait=_PATIENCE_SECONDS)
            if not batch:
                break
            for event in batch:
                tally.add(event)
    return tally.summary()
