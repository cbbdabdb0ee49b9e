"""The queue that fails by script: each fault has exactly its documented effect."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from streamq import BackendError, BackendUnavailableError, StorageFullError
from streamq.driver import START, Entry, QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.testing import (
    Block,
    Call,
    Delay,
    Empty,
    Fail,
    Fault,
    FaultyQueue,
    LoseAcknowledgement,
    Pass,
    StorePrefix,
    Twice,
    new_stream,
)

STREAM = new_stream()
A, B, C = (Entry(1, i, data) for i, data in enumerate((b"a", b"b", b"c")))


@pytest.fixture
async def queue() -> AsyncIterator[FaultyQueue]:
    """A memory queue behind a script that is still empty."""
    options = QueueOptions(ttl=timedelta(minutes=1))
    inner = await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex))
    async with FaultyQueue(inner) as faulty:
        yield faulty


async def stored(queue: FaultyQueue) -> list[bytes]:
    """Return the stored data, without the script."""
    found = await queue.inner.read(STREAM, START, max_records=100, max_bytes=1_000, max_wait=0)
    return [record.data for record in found]


async def read(queue: FaultyQueue, max_wait: float = 0) -> list[bytes]:
    """Return the data of a read through the script."""
    found = await queue.read(STREAM, START, max_records=100, max_bytes=1_000, max_wait=max_wait)
    return [record.data for record in found]


@pytest.mark.parametrize(
    ("fault", "left"),
    [(Fail(), []), (LoseAcknowledgement(), [b"a", b"b", b"c"]), (StorePrefix(2), [b"a", b"b"])],
)
async def test_append_fails_before_after_or_in_between(
    queue: FaultyQueue, fault: Fault, left: list[bytes]
) -> None:
    """The three ways in which an append can fail store different records."""
    queue.script("append", fault)
    with pytest.raises(BackendUnavailableError):
        await queue.append(STREAM, [A, B, C])
    assert await stored(queue) == left
    await queue.append(STREAM, [A, B, C])
    assert await stored(queue) == [b"a", b"b", b"c"]
    assert queue.unused == {}


async def test_faults_meet_calls_in_the_order_of_the_script(queue: FaultyQueue) -> None:
    """A sequence of faults is scripted in one line."""
    queue.script("describe", Pass(), Fail(StorageFullError("full")))
    await queue.append(STREAM, [A])
    await queue.describe(STREAM)
    assert queue.unused == {"describe": 1}
    with pytest.raises(StorageFullError):
        await queue.describe(STREAM)
    await queue.describe(STREAM)


async def test_call_made_twice_reaches_the_backend_twice(queue: FaultyQueue) -> None:
    """Clients repeat requests by themselves, which shows on a backend that does not fence."""
    seen = FaultyQueue(queue.inner)
    outer = FaultyQueue(seen)
    outer.script("append", Twice())
    await outer.append(STREAM, [A])
    assert (outer.count("append"), seen.count("append")) == (1, 2)


async def test_blocked_call_waits_for_its_release(queue: FaultyQueue) -> None:
    """A test can act while a call is in progress."""
    block = Block()
    queue.script("append", block)
    append = asyncio.ensure_future(queue.append(STREAM, [A]))
    await block.reached()
    assert (queue.running["append"], await stored(queue)) == (1, [])
    block.release()
    await append
    assert (queue.running["append"], await stored(queue)) == (0, [b"a"])


async def test_cancelled_blocked_call_does_nothing(queue: FaultyQueue) -> None:
    """A call that is cancelled while it waits must not reach the backend later."""
    block = Block()
    queue.script("append", block)
    append = asyncio.ensure_future(queue.append(STREAM, [A]))
    await block.reached()
    append.cancel()
    await asyncio.wait([append])
    block.release()
    await asyncio.sleep(0)
    assert (append.cancelled(), await stored(queue)) == (True, [])


async def test_delay_is_by_the_clock_of_the_loop(queue: FaultyQueue) -> None:
    """In virtual time a slow backend costs no time; another fault may follow the delay."""
    clock = asyncio.get_running_loop().time
    started = clock()
    queue.script("append", Delay(0.02, Fail()))
    with pytest.raises(BackendUnavailableError):
        await queue.append(STREAM, [A])
    assert clock() - started >= 0.015


async def test_empty_read_returns_at_once(queue: FaultyQueue) -> None:
    """A read may return nothing although there are records."""
    await queue.append(STREAM, [A])
    queue.script("read", Empty())
    assert await read(queue, max_wait=600) == []
    assert await read(queue) == [b"a"]


async def test_outage_ends_calls_that_wait_and_refuses_new_ones(queue: FaultyQueue) -> None:
    """When a server dies, its blocked readers get an error."""
    reading = asyncio.ensure_future(read(queue, max_wait=600))
    await asyncio.sleep(0)
    queue.take_down()
    for call in (reading, queue.append(STREAM, [A]), queue.describe(STREAM), queue.sweep()):
        with pytest.raises(BackendUnavailableError):
            await call
    queue.bring_up()
    await queue.append(STREAM, [A])
    assert await read(queue) == [b"a"]


async def test_always_applies_until_it_is_healed(queue: FaultyQueue) -> None:
    """A function picks the fault for each call; scripted ones come first."""
    queue.always("append", lambda call: Fail() if len(call.entries) > 1 else None)
    await queue.append(STREAM, [A])
    with pytest.raises(BackendUnavailableError):
        await queue.append(STREAM, [B, C])
    queue.script("append", Pass())
    await queue.append(STREAM, [B, C])
    with pytest.raises(BackendUnavailableError):
        await queue.append(STREAM, [B, C])
    queue.heal()
    await queue.append(STREAM, [B, C])


async def test_smaller_limit_is_declared_and_enforced(queue: FaultyQueue) -> None:
    """Tests prove that core splits only if larger records are refused."""
    small = dataclasses.replace(queue.capabilities, max_record_bytes=3)
    limited = FaultyQueue(queue.inner, capabilities=small)
    await limited.append(STREAM, [Entry(1, 0, b"abc")])
    with pytest.raises(BackendError, match="exceeds max_record_bytes=3"):
        await limited.append(STREAM, [Entry(1, 1, b"abcd")])
    assert await stored(queue) == [b"abc"]


async def test_calls_are_logged_with_what_they_asked_for(queue: FaultyQueue) -> None:
    """Tests can inspect the calls of core without a mock of the backend."""
    await queue.append(STREAM, [A, B], ttl=timedelta(seconds=7))
    await asyncio.gather(read(queue), read(queue))
    await queue.idle("read")
    append, *reads = queue.calls
    assert append == Call(method="append", stream=STREAM, entries=(A, B), ttl=timedelta(seconds=7))
    assert [call.method for call in reads] == ["read", "read"]
    assert queue.most_running["read"] == 2


async def test_unknown_method_is_refused(queue: FaultyQueue) -> None:
    """A typing error in a script would make a test useless."""
    with pytest.raises(ValueError, match="'apend' is not one of append"):
        queue.script("apend", Fail())


async def test_fault_of_ones_own_may_change_the_call(queue: FaultyQueue) -> None:
    """A fault of one's own takes a few lines."""

    class Shout(Fault):
        async def apply(self, call: Call, forward: object) -> object:
            louder = [dataclasses.replace(e, data=e.data.upper()) for e in call.entries]
            assert callable(forward)
            return await forward(dataclasses.replace(call, entries=tuple(louder)))

    queue.script("append", Shout())
    await queue.append(STREAM, [A, B])
    assert await stored(queue) == [b"A", b"B"]
