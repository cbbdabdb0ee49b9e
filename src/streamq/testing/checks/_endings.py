"""Checks of endings: every stream ends exactly once, for live and late readers."""

from __future__ import annotations

import asyncio

import pytest

from streamq import Seal, SealedError, SealState, StreamWriter
from streamq.driver import ChunkQueue, StreamId
from streamq.testing._faulty_queue import FaultyQueue
from streamq.testing._queue_faults import LoseAcknowledgement, Pass

from ._conditions import requires
from ._promises import promises
from ._records import data_of
from ._sentences import EVERY_READER, REFLECTED
from ._streams import StreamChecks, delivered
from ._verdicts import refuses, same, same_records

_STATES = pytest.mark.parametrize("state", list(SealState), ids=lambda state: state.name.lower())


async def _seal(writer: StreamWriter, state: SealState) -> None:
    if state is SealState.END:
        await writer.finish()
    elif state is SealState.ERROR:
        await writer.fail("no more tokens", error_type="QuotaError", retryable=True)
    else:
        await writer.cancel("by the user")


_SEALS = {
    SealState.END: Seal(3, 1, SealState.END),
    SealState.ERROR: Seal(3, 1, SealState.ERROR, "QuotaError", "no more tokens", True),
    SealState.CANCELLED: Seal(3, 1, SealState.CANCELLED, message="by the user"),
}


class EndingChecks(StreamChecks):
    """Every stream ends exactly once, for live and late readers."""

    group = "endings"

    @promises(
        "ChunkQueue.append",
        "make blocked readers see them",
    )
    @promises(*EVERY_READER)
    @_STATES
    @requires("writable", "replay", "fan_out")
    async def test_every_ending_ends_live_and_late_readers(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, state: SealState
    ) -> None:
        """A reader that gets no ending shows a spinner for ever."""
        live = [self.follow(each, stream) for each in (queue, other) * 3]
        writer = await self.writer(queue, stream)
        await writer.send_chunk("a")
        await writer.send_chunk("b")
        await _seal(writer, state)
        await writer.aclose()
        results = [*(await asyncio.gather(*live)), await self.read_all(other, stream)]
        self.expect_same(results, ["a", "b", state.name])
        same(results[0][-1], _SEALS[state], "the seal that readers got")

    @promises(
        "ChunkQueue.append",
        "What is stored is exactly the bytes of the entries, one record for each.",
    )
    @requires("writable", "replay")
    async def test_ending_is_stored_in_one_record_with_the_last_chunk(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """A crash must not leave a stream that has all of its chunks and no ending."""
        await self.write(queue, stream, "a", "b", "c")
        records = await self.read_many(queue, stream, 2)
        same(
            len(records),
            2,
            "the number of records: the announcement of the attempt, and everything else",
            cause="the driver splits a record, or stores the record that opens the attempt twice",
        )
        left = list(await self.read(queue, stream, records[-1].position, max_wait=0))
        same(left, [], "the records after the seal", cause="the newest record is returned twice")

    @promises(
        "ChunkQueue.append",
        "When it returns, every entry can be read and described, in every process.",
    )
    @requires("writable", "replay")
    async def test_stream_without_chunks_ends_as_well(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """An activity without output must look different from one that hangs."""
        live = self.follow(other, stream)
        await self.write(queue, stream)
        self.expect_same([await live, await self.read_all(other, stream)], ["END"])

    @promises(*REFLECTED)
    @requires("writable", "replay")
    async def test_second_seal_changes_nothing(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """Cleanup code runs after success; it must not turn a good ending into a bad one."""
        async with self.writer(queue, stream, producer="worker 1") as writer:
            await writer.send_chunk("a")
            await writer.finish()
            await writer.finish()
            with refuses(SealedError, "failing a writer that has sealed its stream"):
                await writer.fail("too late")
            with refuses(SealedError, "sending a chunk to a stream that is sealed"):
                await writer.send_chunk("too late")
        before = data_of(await self.read_many(queue, stream, 2))
        cause = (
            "describe(last=...) on another connection does not return the newest record, the seal"
        )
        with refuses(SealedError, "opening a writer of a sealed stream", cause=cause) as caught:
            await self.writer(other, stream)
        same(caught.value.producer, "worker 1", "the producer in the error")
        after = data_of(await self.read_many(queue, stream, 2))
        same_records(after, before, "the records of a sealed stream, after another writer tried")
        events = delivered(await self.read_all(other, stream))
        same_records(events, ["a", "END"], "the events of a sealed stream")

    @promises(
        "Stored.position",
        "The place after this record, where reading continues",
        cause="the position that describe returns is understood differently by read",
    )
    @requires("writable", "replay")
    async def test_resuming_at_the_ending_ends_again_at_once(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId
    ) -> None:
        """A browser that reconnects after the end must not wait for more events."""
        await self.write(queue, stream, "a", "b")
        cursor = (await self.cursors(queue, stream))[-1]
        for _ in range(2):
            async with self.reader(other, stream, cursor) as reader:
                seal = [Seal(3, 1, SealState.END)]
                same(await reader.read_batch(max_wait=0), seal, "what a reader at the ending gets")
                more = await reader.read_batch(max_wait=self.patience)
                same(more, [], "what a reader gets after the ending")
                cursor = reader.cursor

    @promises(
        "ChunkQueue.append",
        "an append whose acknowledgement was lost is repeated that way",
    )
    @requires("writable", "replay")
    async def test_ending_whose_acknowledgement_is_lost_is_delivered_once(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """The last round trip can fail like any other."""
        faulty = FaultyQueue(queue)
        faulty.script("append", Pass(), *[LoseAcknowledgement()] * 3)
        await self.write(faulty, stream, "a")
        same(len(faulty.unused), 0, "scripted faults that no append has met")
        events = delivered(await self.read_all(queue, stream))
        same_records(events, ["a", "END"], "the events after appends that were repeated")
