"""One reader for all clients of a stream; slow clients, disconnects, and backend failures."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from streamq import CorruptRecordError, Settings, StreamId, open_writer
from streamq.driver import Entry
from streamq.gateway import GatewayOptions, create_app
from streamq.testing import Fail

from .served import Serve, WatchedQueue, eventually, number

TEXT = "0123456789" * 10


class DirectClient:
    """Calls the application without a network, and accepts bytes only when allowed to."""

    def __init__(self, app: Any, name: str, query: str = "") -> None:
        self.received = bytearray()
        self.taking = asyncio.Event()
        self.blocked = asyncio.Event()
        self._started = asyncio.Event()
        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/streams/{name}/events",
            "raw_path": b"",
            "root_path": "",
            "query_string": query.encode(),
            "headers": [],
            "asgi": {"version": "3.0", "spec_version": "2.3"},
        }
        self.done = asyncio.create_task(app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def _send(self, message: dict[str, Any]) -> None:
        self.received += message.get("body", b"")
        if message["type"] == "http.response.body":
            self.blocked.set()
            await self.taking.wait()

    @property
    def ids(self) -> list[int]:
        return [
            int(line[4:].partition(b"@")[0])
            for line in self.received.split(b"\n")
            if line.startswith(b"id: ")
        ]


async def test_fifty_clients_cost_one_read(start: Serve, queue: WatchedQueue) -> None:
    """The load on the broker must not depend on the number of viewers."""
    served = await start()
    clients = [asyncio.create_task(served.values("s", "wait=10")) for _ in range(50)]
    await eventually(lambda: served.gateway.statistics().connections == 50)
    async with open_writer("s", queue=queue) as writer:
        for i in range(20):
            await writer.send_chunk(i)
            await writer.flush()
    assert await asyncio.gather(*clients) == [list(range(20))] * 50
    assert queue.most_running["read"] == 1
    assert queue.records_read <= 22  # the opening, the chunks, the seal: once each


async def test_late_clients_share_the_events_in_memory(start: Serve, queue: WatchedQueue) -> None:
    """A page that is opened during the stream is served from the ring, not from the broker."""
    served = await start()
    async with open_writer("s", queue=queue) as writer, served.events("s") as source:
        events = source.aiter_sse()
        await writer.send_chunk("a")
        await anext(events)
        before = queue.records_read
        async with served.events("s") as late:
            assert number(await anext(late.aiter_sse())) == "1"
        assert queue.records_read == before


async def test_a_slow_client_gets_everything_once_and_delays_no_other(
    queue: WatchedQueue, settings: Settings
) -> None:
    """Its events are read again for it alone; when it has caught up, it shares the reader again."""
    app = create_app(queue, settings, options=GatewayOptions(ring_bytes=2_000))
    async with app.router.lifespan_context(app):
        async with open_writer("s", queue=queue) as writer:
            await writer.send_chunk(TEXT)
            await writer.flush()
            slow, quick = DirectClient(app, "s"), DirectClient(app, "s")
            quick.taking.set()
            await slow.blocked.wait()
            for _ in range(1_000):
                await writer.send_chunk(TEXT)
                if writer.position % 50 == 0:
                    await writer.flush()
            await writer.flush()
            await eventually(lambda: quick.ids[-1:] == [1_001])
            assert slow.ids == []  # it accepts nothing, not even the opening
            slow.taking.set()
            await eventually(lambda: slow.ids[-1:] == [1_001])
            await eventually(lambda: queue.running["read"] == 1)
            await writer.send_chunk("live again")
        await asyncio.gather(slow.done, quick.done)
    assert slow.ids == quick.ids == list(range(1, 1_004))
    assert 2 <= queue.most_running["read"] <= 3  # one for all, one for each that was behind


async def test_falling_behind_does_not_read_the_log_from_its_beginning(
    queue: WatchedQueue, settings: Settings
) -> None:
    """Otherwise a client that is always a little slow would cause quadratic work."""
    app = create_app(queue, settings, options=GatewayOptions(ring_bytes=1_000))
    async with app.router.lifespan_context(app), open_writer("s", queue=queue) as writer:
        quick = DirectClient(app, "s")
        quick.taking.set()
        for _ in range(5_000):
            await writer.send_chunk(TEXT)
            if writer.position % 100 == 0:
                await writer.flush()
        await writer.flush()
        await eventually(lambda: quick.ids[-1:] == [5_000])
        before = queue.records_read
        late = DirectClient(app, "s", "after=4900")
        late.taking.set()
        await eventually(lambda: late.ids[-1:] == [5_000])
        assert late.ids == list(range(4_901, 5_001))
        assert queue.records_read - before <= 15  # of 50
        await writer.finish()
        await asyncio.gather(quick.done, late.done)


async def test_a_late_client_gets_events_that_the_ring_has_dropped(
    start: Serve, queue: WatchedQueue
) -> None:
    """A client that requests the beginning of a long stream gets it, then joins the others."""
    served = await start(ring_bytes=1_000)
    async with open_writer("s", queue=queue) as writer:
        for _ in range(300):
            await writer.send_chunk(TEXT)
        await writer.flush()
        async with served.events("s") as source:
            events = source.aiter_sse()
            seen = [int(number(await anext(events))) for _ in range(300)]
            await writer.send_chunk("live")
            assert number(await anext(events)) == "301"
        assert seen == list(range(1, 301))


async def test_the_tail_of_a_long_stream_is_not_read_from_its_beginning(
    start: Serve, queue: WatchedQueue
) -> None:
    """Reading the newest events must not transfer a gigabyte."""
    async with open_writer("s", queue=queue) as writer:
        for _ in range(3_000):
            await writer.send_chunk(TEXT)
            if writer.position % 50 == 0:
                await writer.flush()
        served = await start(ring_bytes=10_000)
        async with served.events("s", "from=tail") as source:
            await writer.send_chunk("new")
            await writer.finish()
            ids = [number(event) async for event in source.aiter_sse() if event.data]
        assert ids == ["3001", "3002"]
        assert queue.records_read <= 5
    assert [int(number(event)) for event in await served.collect("s")] == list(range(1, 3_003))


async def test_a_client_that_disconnects_affects_no_other(
    start: Serve, queue: WatchedQueue
) -> None:
    """A closed tab must not affect the producer or other clients."""
    served = await start()
    async with open_writer("s", queue=queue) as writer, served.events("s") as stays:
        events = stays.aiter_sse()
        async with served.events("s") as leaves:
            await writer.send_chunk("a")
            await anext(leaves.aiter_sse())
            assert number(await anext(events)) == "1"
        await eventually(lambda: served.gateway.statistics().connections == 1)
        await writer.send_chunk("b")
        assert number(await anext(events)) == "2"
        assert queue.running["read"] == 1


async def test_reading_stops_after_the_last_client_has_left(
    start: Serve, queue: WatchedQueue
) -> None:
    """A process that has served many streams must not continue to read them all."""
    served = await start(linger_seconds=0.02)
    async with open_writer("s", queue=queue) as writer:
        async with served.events("s") as source:
            await writer.send_chunk("a")
            await anext(source.aiter_sse())
            assert queue.running["read"] == 1
        async with asyncio.timeout(5):
            await queue.idle("read")
        await eventually(lambda: served.gateway.statistics().streams == 0)
        await writer.send_chunk("b")
    assert await served.values("s") == ["a", "b"]


async def test_a_client_that_reconnects_soon_finds_the_stream_open(
    start: Serve, queue: WatchedQueue
) -> None:
    """A reload of the page must not make the broker send everything again."""
    served = await start(linger_seconds=30)
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        async with served.events("s") as source:
            await anext(source.aiter_sse())
        await eventually(lambda: served.gateway.statistics().connections == 0)
        before = queue.records_read
        async with served.events("s") as source:
            assert number(await anext(source.aiter_sse())) == "1"
        assert queue.records_read == before


async def test_a_finished_stream_is_not_kept(start: Serve, queue: WatchedQueue) -> None:
    """Its reader is closed at the end, and its memory is freed soon afterwards."""
    served = await start(linger_seconds=0.05)
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
    assert await served.values("s") == ["a"]
    assert queue.running["read"] == 0
    await eventually(lambda: served.gateway.statistics().streams == 0)


async def test_when_the_backend_fails_every_client_gets_the_error(
    start: Serve, queue: WatchedQueue
) -> None:
    """The worst failure of a gateway is a client that waits for ever without an error."""
    served = await start()
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        clients = [asyncio.create_task(served.collect("s")) for _ in range(5)]
        await eventually(
            lambda: served.gateway.statistics().connections == 5 and queue.records_read == 2
        )
        queue.take_down()
        for events in await asyncio.gather(*clients):
            chunk, error = events
            assert number(chunk) == "1"
            assert error.event == "error"
            assert error.json() == {
                "error": "backend_unavailable",
                "message": "the backend cannot be reached at the moment; try again",
                "retryable": True,
            }
            assert error.retry == 2_000
        queue.bring_up()
        await writer.send_chunk("b")
        await writer.finish()
    assert [number(event) for event in await served.collect("s", last_event_id="1")] == ["2", "3"]


async def test_a_short_failure_of_the_backend_goes_unnoticed(
    start: Serve, queue: WatchedQueue
) -> None:
    """Failures that retries overcome must not reach the client."""
    served = await start()
    served.gateway.settings = served.gateway.settings.model_copy(update={"retry_seconds": 10})
    async with open_writer("s", queue=queue) as writer, served.events("s") as source:
        events = source.aiter_sse()
        await writer.send_chunk("a")
        await anext(events)
        queue.take_down()
        await queue.idle("read")
        queue.bring_up()
        await writer.send_chunk("b")
        assert number(await anext(events)) == "2"


async def test_after_a_permanent_failure_clients_wait_longer(
    start: Serve, queue: WatchedQueue
) -> None:
    """Events before a damaged record are delivered; reconnecting at once would not help."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        identity = StreamId("default", "s")
        await queue.append(identity, [Entry(writer.epoch, 1_000, b"damaged")])
        served = await start()
        chunk, error = await served.collect("s", "from=beginning")
    assert chunk.json()["value"] == "a"
    assert error.json()["error"] == CorruptRecordError.code
    assert error.json()["retryable"] is False
    assert error.retry == 10_000


async def test_clients_of_a_deleted_stream_get_an_error(start: Serve, queue: WatchedQueue) -> None:
    """No event will ever arrive, so its clients get an error."""
    served = await start(heartbeat_seconds=0.03)
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        async with served.events("s") as source:
            events = source.aiter_sse()
            assert number(await anext(events)) == "1"
            await queue.delete(StreamId("default", "s"))
            error = await anext(events)
            assert error.json()["error"] == "stream_not_found"


async def test_an_outage_during_silence_goes_unnoticed(start: Serve, queue: WatchedQueue) -> None:
    """During an outage it is unknown whether the stream exists; that is no error."""
    served = await start(heartbeat_seconds=0.02)
    async with open_writer("s", queue=queue) as writer, served.events("s") as source:
        events = source.aiter_sse()
        await writer.send_chunk("a")
        await anext(events)
        queue.always("describe", Fail())
        before = queue.count("describe")
        # Past the retry deadline of 50 ms.
        await eventually(lambda: queue.count("describe") >= before + 10)
        queue.heal()
        await writer.send_chunk("b")
        assert number(await anext(events)) == "2"


async def test_silence_beyond_the_idle_deadline_is_reported_to_every_client(
    start: Serve, queue: WatchedQueue
) -> None:
    """A stream whose producer died without a seal must not keep its clients for ever."""
    served = await start()
    served.gateway.settings = served.gateway.settings.model_copy(update={"idle_seconds": 0.3})
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        for chunk, error in await asyncio.gather(*(served.collect("s") for _ in range(3))):
            assert (chunk.event, number(chunk), error.event) == ("chunk", "1", "error")
            assert error.json() == {
                "error": "idle_timeout",
                "message": "nothing has arrived on stream default/s for 0.3 s; its producer may "
                "be gone",
                "retryable": True,
            }
            assert error.retry == 2_000
        # A client that reconnects by id waits again, and misses nothing of a slow producer.
        async with served.events("s", last_event_id="1") as source:
            await writer.send_chunk("b")
            assert number(await anext(source.aiter_sse())) == "2"


async def test_every_event_restarts_the_idle_deadline(start: Serve, queue: WatchedQueue) -> None:
    """A slow producer must not count as a dead one."""
    served = await start(heartbeat_seconds=0.05)
    served.gateway.settings = served.gateway.settings.model_copy(update={"idle_seconds": 0.6})
    async with open_writer("s", queue=queue) as writer, served.events("s") as source:
        events = source.aiter_sse()
        started = asyncio.get_running_loop().time()
        while asyncio.get_running_loop().time() < started + 1.0:
            await writer.send_chunk("x")
            assert (await anext(events)).event == "chunk"
            await asyncio.sleep(0.1)  # the pause of the producer that is tested
        assert (await anext(events)).json()["error"] == "idle_timeout"


async def test_a_stream_that_is_awaited_is_not_idle(start: Serve, queue: WatchedQueue) -> None:
    """``?wait=`` sets the wait for a stream to begin, not the idle deadline."""
    served = await start(heartbeat_seconds=0.02)
    served.gateway.settings = served.gateway.settings.model_copy(update={"idle_seconds": 0.05})
    (error,) = await served.collect("never", "wait=1")
    assert error.json()["error"] == "stream_not_found"


async def test_a_client_that_accepts_no_data_is_dropped(
    queue: WatchedQueue, settings: Settings
) -> None:
    """A peer that disappeared behind a proxy never disconnects."""
    app = create_app(queue, settings, options=GatewayOptions(send_timeout_seconds=0.02))
    async with app.router.lifespan_context(app), open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        vanished = DirectClient(app, "s")
        async with asyncio.timeout(5):
            await vanished.done
        assert app.state.gateway.statistics().connections == 0


async def test_a_chunk_larger_than_the_ring_is_delivered(start: Serve, queue: WatchedQueue) -> None:
    """The bound limits the memory, not the size of a chunk."""
    served = await start(ring_bytes=10)
    async with served.events("s", "wait=5") as source, open_writer("s", queue=queue) as writer:
        await writer.send_chunk("x" * 100_000)
        await writer.finish()
        events = [event async for event in source.aiter_sse()]
    assert [len(json.loads(event.data).get("value", "")) for event in events] == [100_000, 0]


async def test_clients_at_different_paces_all_see_the_same(
    queue: WatchedQueue, settings: Settings
) -> None:
    """A client that alternates between ring and backend gets every event once and in order."""
    app = create_app(queue, settings, options=GatewayOptions(ring_bytes=3_000))
    async with app.router.lifespan_context(app):
        async with open_writer("s", queue=queue) as writer:
            await writer.send_chunk(0)
            await writer.flush()
            readers = [DirectClient(app, "s", f"after={i % 2}") for i in range(10)]

            async def dither(reader: DirectClient, every: int) -> None:
                while not reader.done.done():
                    reader.taking.set()
                    for _ in range(every):
                        await asyncio.sleep(0)
                    reader.taking.clear()
                    for _ in range(every * 3):
                        await asyncio.sleep(0)

            pacers = [asyncio.create_task(dither(r, i + 1)) for i, r in enumerate(readers)]
            for i in range(1, 2_000):
                await writer.send_chunk(i)
                if i % 7 == 0:
                    await asyncio.sleep(0)
        await asyncio.gather(*(reader.done for reader in readers), *pacers)
    for i, reader in enumerate(readers):
        assert reader.ids == list(range(1 + i % 2, 2_002))


class Reversed:
    """A codec that the gateway does not have."""

    async def encode(self, data: bytes) -> bytes:
        return data[::-1]

    async def decode(self, data: bytes) -> bytes:
        return data[::-1]


async def test_a_failure_is_logged_once_however_often_clients_reconnect(
    start: Serve, queue: WatchedQueue, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A page on an encrypted stream reconnects for ever; the log must show the failure once."""
    served = await start()
    for name in ("a", "b"):
        async with open_writer(name, queue=queue, settings=settings, codec=Reversed()) as stream:
            await stream.send_chunk("words")
    for name in ("a", "a", "b", "a"):
        [error] = await served.collect(name)
        assert error.json()["error"] == "serialization"
    warned = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    # Beside the warning of an open gateway, unless other tests have logged that too often by now.
    assert [line.split(" stopped")[0] for line in warned if line.startswith("reading")] == [
        "reading default/a",
        "reading default/b",
    ]
