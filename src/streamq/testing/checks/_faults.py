"""Checks of faults: lost, repeated, slow and failed calls cost time, and no data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, cast

import pytest

from streamq import BackendUnavailableError, StreamqError
from streamq.driver import ChunkQueue, Stored, StreamId
from streamq.testing._faulty_queue import FaultyQueue
from streamq.testing._harness import LONG_TTL, BackendHarness, OpenQueue
from streamq.testing._interleaving import interleave
from streamq.testing._queue_faults import (
    Block,
    Call,
    Delay,
    Empty,
    Fail,
    Fault,
    LoseAcknowledgement,
    StorePrefix,
    Twice,
)

from ._conditions import needs, requires
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries, new_stream, numbered
from ._sentences import FAILED_APPEND, HEALS, NO_DEADLINE, REPEATED_READ
from ._streams import StreamChecks
from ._verdicts import holds, refuses, same, same_records

_MOST_AWAITS = 5  # later ones are those of clients that need many steps to connect anew
_NOTICED_SECONDS = 0.02
_PART = (
    "the error of a later page is swallowed, and the pages before it are returned as if they were "
    "all: raise it"
)

_APPEND_FAULTS = {
    "fails before it stores": Fail(),
    "loses its acknowledgement": LoseAcknowledgement(),
    "stores a prefix": StorePrefix(1),
    "is made twice": Twice(),
    "is slow": Delay(0.02),
}
_READ_FAULTS = {
    "fails": Fail(),
    "loses its answer": LoseAcknowledgement(),
    "finds nothing": Empty(),
    "is slow": Delay(0.02),
}


def _every_other(fault: Fault) -> Callable[[Call], Fault | None]:
    calls = 0

    def choose(_: Call) -> Fault | None:
        nonlocal calls
        calls += 1
        return fault if calls % 2 else None

    return choose


class FaultChecks(StreamChecks):
    """Lost, repeated, slow and failed calls cost time, and no data."""

    group = "faults"

    # -- scripted faults -----------------------------------------------------------------------

    @promises(
        "ChunkQueue.append",
        "An entry of the same epoch whose index is at or below the newest one is skipped without "
        "error: an append whose acknowledgement was lost is repeated that way.",
    )
    @promises(*FAILED_APPEND)
    @pytest.mark.parametrize("fault", _APPEND_FAULTS.values(), ids=_APPEND_FAULTS)
    @requires("writable", "replay")
    async def test_stream_is_delivered_once_when_every_other_append(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, fault: Fault
    ) -> None:
        """Requests and answers get lost in networks; the text must not show it."""
        faulty = FaultyQueue(queue)
        faulty.always("append", _every_other(fault))
        live = self.follow(other, stream)
        async with self.writer(faulty, stream) as writer:
            for i in range(10):
                await writer.send_chunk(str(i))
                await writer.send_chunk("x" * 40_000)  # so that an append has several records
                if i % 3 == 0:
                    await writer.flush()
        story = [text for i in range(10) for text in (str(i), "x" * 40_000)]
        self.expect_same([await live, await self.read_all(queue, stream)], [*story, "END"])

    @promises(*REPEATED_READ)
    @pytest.mark.parametrize("fault", _READ_FAULTS.values(), ids=_READ_FAULTS)
    @requires("writable", "replay")
    async def test_reader_misses_nothing_when_every_other_read(
        self, queue: ChunkQueue, stream: StreamId, fault: Fault
    ) -> None:
        """A reader that loses its connection continues where it was."""
        faulty = FaultyQueue(queue)
        faulty.always("read", _every_other(fault))
        live = self.follow(faulty, stream)
        async with self.writer(queue, stream) as writer:
            for i in range(10):
                await writer.send_chunk(str(i))
                await writer.flush()
        story = [*map(str, range(10)), "END"]
        self.expect_same([await live, await self.read_all(faulty, stream)], story)

    @promises(*FAILED_APPEND)
    @requires("writable", "replay")
    async def test_outage_beyond_the_deadline_is_reported_and_later_work_succeeds(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Writers and readers must learn within a stated time that the backend is away."""
        faulty = FaultyQueue(queue)
        brief = self.settings(retry_seconds=0.2)
        writer = await self.writer(faulty, stream, epoch=1, settings=brief)
        async with self.reader(faulty, stream, settings=brief) as reader:
            reading = await self.blocked(reader.read_batch(max_wait=self.patience))
            faulty.take_down()
            await writer.send_chunk("lost")
            async with within(self.patience, "streamq gives up during an outage"):
                with refuses(BackendUnavailableError, "flush() during an outage"):
                    await writer.flush()
                with refuses(BackendUnavailableError, "read_batch() during an outage"):
                    await reading
            await writer.aclose()
            faulty.bring_up()
            async with self.writer(faulty, stream, epoch=2) as second:
                await second.send_chunk("found")
            events = [event async for event in reader]
            again = await self.read_all(queue, stream)
            same(events, again, "the events of a reader that went on after the outage")

    @promises(
        "ChunkQueue",
        "streamq gives up after ``STREAMQ_OPERATION_SECONDS``; a driver should be quicker.",
    )
    @requires("writable", "replay")
    async def test_call_that_a_driver_never_answers_ends_at_the_deadline(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """If a driver never answers, streamq's own deadline ends the wait."""
        faulty = FaultyQueue(queue)
        # Long enough for the calls that open the writer, on a busy machine as well.
        brief = self.settings(retry_seconds=0.1, operation_seconds=0.5)
        writer = await self.writer(faulty, stream, settings=brief)
        reader = await self.reader(faulty, stream, settings=brief)
        faulty.always("append", Block())
        faulty.always("read", Block())
        async with within(self.patience, "streamq gives up a driver that never answers"):
            await writer.send_chunk("a")
            with refuses(BackendUnavailableError, "flush(), where append never returns"):
                await writer.flush()
            with refuses(BackendUnavailableError, "read_batch(), where read never returns"):
                await reader.read_batch(max_wait=0.1)
        await writer.aclose()
        await reader.aclose()

    # -- connections ---------------------------------------------------------------------------

    @promises(*HEALS)
    @needs("break_connections")
    async def test_connection_that_dropped_while_idle_is_replaced(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Firewalls cut idle connections: the first call afterwards may fail, the next must not."""
        await queue.append(stream, entries(b"a"))
        await backend.break_connections()
        await self.until_answered(lambda: queue.append(stream, entries(b"b", first=1)))
        await backend.break_connections()
        await self.until_answered(lambda: queue.describe(stream))
        await backend.break_connections()
        await self.until_answered(lambda: self.read(queue, stream, max_wait=0))
        await self.expect(queue, stream, [b"a", b"b"])

    @promises(*HEALS)
    @needs("break_connections")
    async def test_read_that_is_blocked_when_its_connection_drops_fails_or_continues(
        self, queue: ChunkQueue, stream: StreamId, backend: BackendHarness, open_queue: OpenQueue
    ) -> None:
        """A reader that waits on a dead connection would wait for ever, without an error."""
        await queue.append(stream, entries(b"a"))
        tail = (await self.read(queue, stream))[-1].position
        waiting = await self.blocked(self.read(queue, stream, tail, max_wait=4 * self.patience))
        await backend.break_connections()
        await (await open_queue()).append(stream, entries(b"b", first=1))
        found: list[bytes] = []
        what = "a read that waited while its connection was broken and a record was appended"
        async with within(self.patience, what, cause=NO_DEADLINE):
            try:
                found = data_of(await waiting)
            except BackendUnavailableError:
                # Without replay, the lost answer has hidden the record for a while.
                wait = 0.0 if queue.capabilities.replay else self.patience
                await self.until_answered(lambda: queue.describe(stream))
                found = data_of(await self.read(queue, stream, tail, max_wait=wait))
        same_records(found, [b"b"], f"what {what}, or its repeat, returned")

    @promises(*HEALS)
    @promises("ChunkQueue", "No call waits for ever")
    @promises(
        "ChunkQueue.read",
        "With ``capabilities.ordered`` no record is left out: if fewer are returned than both "
        "limits allow, they are all whose append had returned, in any process, when the call "
        "began.",
    )
    @needs("break_connections")
    @requires("fenced", "replay", "ordered")
    @pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
    async def test_connection_may_drop_at_every_await_of_a_call(
        self, queue: ChunkQueue, backend: BackendHarness, answered: bool
    ) -> None:
        """A call of several requests may lose any of them, or each answer but the first."""

        async def drop() -> None:
            # Nothing tells when an answer is there, or when a driver has noticed.
            await asyncio.sleep(_NOTICED_SECONDS if answered else 0)
            await backend.break_connections()
            await asyncio.sleep(_NOTICED_SECONDS)

        async def listed(tenant: str) -> list[str]:
            return [info.stream.name async for info in queue.streams(tenant)]

        data = numbered(9)  # more than a careful first page
        for at in range(1, _MOST_AWAITS + 1):
            stream, was_held = new_stream(), False
            calls: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
                "append": partial(queue.append, stream, entries(*data), ttl=LONG_TTL),
                "read": partial(self.read, queue, stream, max_wait=0),
                "describe": partial(queue.describe, stream, last=2),
                "streams": partial(listed, stream.tenant),
                "delete": partial(queue.delete, stream),
            }
            for name, call in calls.items():
                what = f"{name}(), whose connection drops at its {at}. await,"
                async with within(self.patience, what, cause=NO_DEADLINE):
                    outcome = await interleave(call(), at, drop, reach_seconds=self.patience)
                was_held |= outcome.was_held
                holds(
                    outcome.error is None or isinstance(outcome.error, BackendUnavailableError),
                    what,
                    expected="it succeeds, or raises BackendUnavailableError",
                    seen=outcome.error,
                    cause="the loss of the connection is translated to another error",
                )
                if name == "read" and outcome.error is None:
                    found = data_of(cast("Sequence[Stored]", outcome.value()))
                    same_records(found, data, f"the records of {what}", cause=_PART)
                await self.until_answered(call)
            if not was_held:
                return

    @promises(*HEALS)
    @promises(
        "Capabilities.cross_host",
        "The same holds for other hosts, over a network that breaks connections and loses answers.",
    )
    @needs("break_connections")
    @requires("writable", "replay")
    async def test_stream_is_delivered_once_through_dropped_connections(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Connections drop in the middle of appends and reads: nothing lost, nothing twice."""
        live = self.follow(other, stream)
        async with self.writer(queue, stream) as writer:
            for i in range(100):
                await writer.send_chunk(str(i))
                if i % 10 == 5:
                    await backend.break_connections()
                if i % 4 == 0:
                    await asyncio.sleep(0.002)
        story = [*map(str, range(100)), "END"]
        self.expect_same([await live, await self.read_all(queue, stream)], story)

    @promises(
        "Capabilities.ordered",
        "For the appends of one writer, it is the order of the calls.",
    )
    @needs("slow")
    @requires("writable", "replay")
    async def test_slow_backend_is_neither_an_error_nor_a_cause_of_disorder(
        self, queue: ChunkQueue, other: ChunkQueue, stream: StreamId, backend: BackendHarness
    ) -> None:
        """Another continent is not an outage."""
        async with backend.slow(0.1):
            live = self.follow(other, stream)
            async with self.writer(queue, stream) as writer:
                for i in range(30):
                    await writer.send_chunk(str(i))
                    await asyncio.sleep(0.005)
            self.expect_same([await live], [*map(str, range(30)), "END"])

    # -- the server ----------------------------------------------------------------------------

    @promises(
        "ChunkQueue",
        "Every method raises errors of :mod:`streamq` only",
    )
    @promises(
        "ChunkQueue",
        "Each error has the driver's name as ``backend`` and, if the call has one, the stream as "
        "``stream``.",
    )
    async def test_errors_of_the_backend_are_errors_of_streamq(
        self, queue: ChunkQueue, stream: StreamId
    ) -> None:
        """Applications catch one base class; another exception would end their process."""
        for what, call in (
            ("describe of a missing stream", lambda: queue.describe(stream)),
            (
                "read after 'not a position'",
                lambda: self.read(queue, stream, "not a position", max_wait=0),
            ),
        ):
            cause = (
                "an error of the client or of Python comes through: translate it by an ErrorTable"
            )
            with refuses(StreamqError, what, cause=cause) as caught:
                await call()
            same(
                (caught.value.backend, caught.value.stream),
                (queue.backend, str(stream)),
                f"backend and stream of the error of {what}",
                cause="the error is raised without backend=self.backend, stream=str(stream)",
            )
