"""Bounds of everything that clients can ask of the gateway: hubs, waits, pages, memory, lines."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from typing import Any

import httpx
import pytest

from streamq import Settings, load_settings, open_queue, open_writer
from streamq.driver import ChunkQueue
from streamq.gateway import GatewayOptions, create_app, serve
from streamq.gateway._clients import Client, Clients
from streamq.gateway._log_limit import LogLimit
from streamq.testing import Block, Delay

from .served import Serve, WatchedQueue, eventually

TEXT = "0123456789" * 10


async def write(queue: ChunkQueue, name: str, chunks: int, text: str = TEXT) -> None:
    """Write a stream that has ended, in records of 50 chunks."""
    async with open_writer(name, queue=queue) as writer:
        for i in range(chunks):
            await writer.send_chunk(text)
            if i % 50 == 49:
                await writer.flush()


async def test_names_that_do_not_exist_cost_no_hub(start: Serve, queue: WatchedQueue) -> None:
    """Someone who guesses names must not fill the memory of the process."""
    served = await start(linger_seconds=60)
    for i in range(30):
        assert (await served.get(f"/streams/nothing-{i}/events")).status_code == 404
    assert served.gateway.statistics().streams == 0
    async with served.events("awaited", "wait=60"):
        await eventually(lambda: served.gateway.statistics().streams == 1)
    await eventually(lambda: served.gateway.statistics().streams == 0)
    await queue.idle("read")


async def test_a_head_request_reads_nothing(start: Serve, queue: WatchedQueue) -> None:
    """It costs one question to the backend, and leaves nothing."""
    await write(queue, "s", 10)
    served = await start(linger_seconds=60)
    for _ in range(5):
        assert (await served.client.head("/streams/s/events")).status_code == 200
    assert served.gateway.statistics().streams == 0
    assert queue.records_read == 0


async def test_waiting_for_streams_is_bounded_in_all_and_for_each_client(start: Serve) -> None:
    """One client cannot take the places of the others; behind a proxy each one counts by itself."""
    served = await start(max_waiting=4, trusted_proxies=("127.0.0.0/8",))
    path = "/streams/nothing/events?wait=60"
    async with asyncio.timeout(20):
        refused: list[httpx.Response] = []
        open_ones: list[httpx.Response] = []
        for client in (
            "192.0.2.1",
            "192.0.2.1",
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "192.0.2.4",
        ):
            request = served.client.build_request(
                "GET", path, headers={"X-Forwarded-For": f"203.0.113.9, {client}"}
            )
            response = await served.client.send(request, stream=True)
            (open_ones if response.status_code == 200 else refused).append(response)
    assert len(open_ones) == 4
    assert [each.status_code for each in refused] == [429, 503]
    for each in refused:
        assert int(each.headers["retry-after"]) >= 1
        await each.aread()
        assert each.json()["error"] in ("client_limit", "gateway_limit")
    assert served.gateway.statistics().waiting == 4
    for each in open_ones:
        await each.aclose()
    await eventually(lambda: served.gateway.statistics().waiting == 0)


async def test_a_stream_that_appears_gives_its_place_back(
    start: Serve, queue: WatchedQueue
) -> None:
    """The bound is of waits for what is not there, not of readers."""
    served = await start(max_waiting=1, client_share=1)
    async with served.events("s", "wait=60") as source, open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        assert (await anext(source.aiter_sse())).data
        assert served.gateway.statistics().waiting == 0
        async with served.events("other", "wait=60") as other:
            assert other.response.status_code == 200


async def test_clients_that_come_back_at_once_are_all_served(start: Serve) -> None:
    """After a restart; an EventSource that gets 503 does not come again."""
    served = await start(queue_seconds=0.001)
    answers = await asyncio.gather(*(served.get("/healthz") for _ in range(100)))
    assert Counter(answer.status_code for answer in answers) == {200: 100}


@pytest.mark.parametrize(("given", "at_once"), [(4, 4), (None, 2)])
async def test_what_asks_the_backend_is_bounded(
    start: Serve, queue: WatchedQueue, given: int | None, at_once: int
) -> None:
    """Readiness, and clients that have waited for streams in vain, all at the same time."""
    served = await start(max_queries=given, client_share=1)
    queue.always("describe", Delay(0.05))
    ready = await asyncio.gather(*(served.get("/readyz") for _ in range(50)))
    assert {answer.status_code for answer in ready} == {200}
    assert queue.most_running["describe"] == 1
    names = [f"/streams/never-{i}/events?wait=1" for i in range(60)]
    for answer in await asyncio.gather(*map(served.get, names)):
        assert '"error":"stream_not_found"' in answer.text
    assert queue.most_running["describe"] == at_once


async def test_event_streams_are_bounded(start: Serve, queue: WatchedQueue) -> None:
    """The rest of the descriptors is for short requests."""
    await write(queue, "s", 1)
    served = await start(max_connections=3, client_share=1)
    async with (
        served.events("a", "wait=9"),
        served.events("b", "wait=9"),
        served.events("c", "wait=9"),
    ):
        response = await served.get("/streams/s/events")
        assert (response.status_code, response.json()["error"]) == (503, "gateway_limit")
        assert (await served.get("/streams/s")).status_code == 200
    await eventually(lambda: served.gateway.statistics().connections == 0)
    assert (await served.get("/streams/s/events")).status_code == 200


async def test_streams_that_were_opened_and_left_are_few_and_small(
    start: Serve, queue: WatchedQueue
) -> None:
    """Their memory is bounded however many are opened, and readers that stay miss nothing."""
    served = await start(
        linger_seconds=60, max_lingering=4, rings_bytes=100_000, pages_bytes=50_000
    )
    async with open_writer("live", queue=queue) as live, served.events("live") as source:
        events = source.aiter_sse()
        for i in range(12):
            await write(queue, f"left-{i}", 300)
            async with served.events(f"left-{i}") as left:
                await anext(left.aiter_sse())
            await live.send_chunk(TEXT * 100)
            await live.flush()
        seen = [(await anext(events)).id.partition("@")[0] for _ in range(12)]
        assert seen == [str(i + 1) for i in range(12)]
        await eventually(lambda: served.gateway.statistics().connections == 1)
        statistics = served.gateway.statistics()
        assert statistics.lingering <= 4
        assert statistics.streams <= 5
        assert 0 < statistics.memory_bytes <= 150_000


async def test_clients_that_read_again_share_the_pages(start: Serve, queue: WatchedQueue) -> None:
    """Ten readers of a long stream cost the backend one, wherever they begin."""
    chunks = 2_000
    await write(queue, "s", chunks)
    stored = chunks // 50 + 2
    served = await start(ring_bytes=1_000, queue_seconds=60)
    served.client.timeout = httpx.Timeout(60)
    for found in await asyncio.gather(*(served.raw("s") for _ in range(10))):
        assert ids(found) == list(range(1, chunks + 2))
    assert queue.records_read <= 2 * stored
    offsets = range(0, chunks, 201)
    everything = await asyncio.gather(*(served.raw("s", f"after={after}") for after in offsets))
    for after, found in zip(offsets, everything, strict=True):
        assert ids(found) == list(range(after + 1, chunks + 2))
    assert queue.records_read <= 3 * stored


def ids(found: bytes) -> list[int]:
    """Return the offsets of the events in a response."""
    return [int(each) for each in re.findall(rb"^id: ([0-9]+)", found, re.MULTILINE)]


async def test_few_pages_are_read_at_once_and_live_events_pass(
    start: Serve, queue: WatchedQueue
) -> None:
    """Clients that catch up wait for their turn with heartbeats; live clients do not wait."""
    for i in range(6):
        await write(queue, f"old-{i}", 200)
    served = await start(max_page_reads=2, client_share=1, heartbeat_seconds=0.05)
    async with open_writer("live", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        async with served.events("live", "from=tail") as source:
            events = source.aiter_sse()
            queue.always(
                "read", lambda call: Block() if str(call.stream).find("old") >= 0 else None
            )
            late = [asyncio.create_task(served.raw(f"old-{i}")) for i in range(6)]
            await eventually(lambda: served.gateway.statistics().page_waits == 4)
            assert served.gateway.statistics().page_reads == 2
            await writer.send_chunk("b")
            while (event := await anext(events)).event != "chunk":
                pass
            assert event.json()["value"] == "b"
            before = queue.count("read")
            await asyncio.sleep(0.3)  # several heartbeats, the wait that is tested
            assert queue.count("read") - before < 30
            queue.heal()
            for each in late:
                each.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await eventually(lambda: served.gateway.statistics().page_waits == 0)


async def test_a_page_is_read_in_the_turn_of_each_client_that_wants_it(
    start: Serve, queue: WatchedQueue
) -> None:
    """Whoever asks for the pages of all streams must not delay others that want one of them."""
    proxied = {"X-Forwarded-For": "192.0.2.1"}
    served = await start(max_page_reads=2, trusted_proxies=("127.0.0.1",))
    for i in range(6):
        await write(queue, f"s-{i}", 200)
    queue.always("read", lambda call: Block() if "s-0" in str(call.stream) else None)
    greedy = [asyncio.create_task(served.raw("s-0"))]
    await eventually(lambda: served.gateway.statistics().page_reads == 1)
    greedy += [asyncio.create_task(served.raw(f"s-{i}")) for i in range(1, 6)]
    await eventually(lambda: served.gateway.statistics().page_waits == 5)
    other = await served.client.get("/streams/s-5/events", headers=proxied)
    assert ids(other.content) == list(range(1, 202))
    queue.heal()
    for each in greedy:
        each.cancel()
    await asyncio.gather(*greedy, return_exceptions=True)
    await eventually(lambda: served.gateway.statistics().page_reads == 0)
    assert served.gateway.statistics().page_waits == 0


async def test_what_is_not_live_is_read_by_a_queue_of_its_own(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read of the past may keep a driver's thread or connection busy."""
    opened: list[WatchedQueue] = []

    async def watched(chosen: Settings) -> WatchedQueue:
        opened.append(WatchedQueue(await open_queue(chosen)))
        return opened[-1]

    monkeypatch.setattr("streamq.gateway._queues.open_queue", watched)
    app = create_app(settings=settings)
    async with serve(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        async with open_writer("s", queue=opened[0].inner) as writer:
            await writer.send_chunk(TEXT)
        assert TEXT in (await client.get("/streams/s/events")).text
        assert (await client.get("/streams/s")).status_code == 200
        assert (await client.get("/streams")).status_code == 200
    live, past = opened
    assert past.count("describe") == 2
    assert past.count("streams") == 1
    assert past.records_read > 0
    assert live.count("describe") == live.count("streams") == 0


async def test_a_large_event_is_sent_in_pieces(queue: WatchedQueue, settings: Settings) -> None:
    """A server keeps a copy of what a slow client has not accepted."""
    await write(queue, "s", 1, "x" * 900_000)
    app = create_app(queue, settings)
    sizes: list[int] = []
    received = bytearray()

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        sizes.append(len(message.get("body", b"")))
        received.extend(message.get("body", b""))

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/streams/s/events",
        "raw_path": b"",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "asgi": {"version": "3.0", "spec_version": "2.3"},
    }
    async with app.router.lifespan_context(app), asyncio.timeout(20):
        await app(scope, receive, send)  # type: ignore[arg-type]
    assert max(sizes) <= 65_536
    assert received.count(b"x") >= 900_000


async def test_a_client_that_goes_while_it_is_opened_leaves_nothing(
    start: Serve, queue: WatchedQueue
) -> None:
    """The server does not end the request of a client that has gone, so the gateway has to."""
    await write(queue, "s", 1)
    served = await start(max_connections=8, client_share=1)
    for path in ("/streams/s/events", "/streams/nothing/events?wait=9"):
        queue.script("describe", Block())
        request = asyncio.create_task(served.get(path))
        await eventually(lambda: queue.running["describe"] == 1)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await asyncio.wait_for(queue.idle("describe"), 20)
    for path in ("/streams/s/events", "/streams/s/events?after=0"):
        queue.script("read", Block(), Block())
        request = asyncio.create_task(served.get(path))
        await eventually(lambda: queue.running["read"] >= 1)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await eventually(lambda: served.gateway.statistics().connections == 0)
    statistics = served.gateway.statistics()
    assert (statistics.waiting, statistics.page_reads, statistics.page_waits) == (0, 0, 0)
    assert served.gateway.bounds.connections.held == 0


async def test_a_client_that_goes_before_its_turn_gives_up_its_place(start: Serve) -> None:
    """Clients that have waited too long ask again: serving the old requests first would be in vain.

    A gateway under load would then be busy with requests that nobody waits for, for ever.
    """
    served = await start()
    turns = served.gateway._gate._turns
    another = Client("another")
    await turns.take(another)  # no request may begin
    requests = [asyncio.create_task(served.get("/streams/s")) for _ in range(5)]
    await eventually(lambda: turns.waiting == 5)
    stays = requests.pop()
    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    await eventually(lambda: turns.waiting == 1)
    turns.give_back(another)
    assert (await stays).status_code == 404


def test_a_kind_of_line_is_logged_a_few_times_only() -> None:
    """Whoever can cause a line in the log must not be able to fill the disk."""
    limit = LogLimit()

    def passes(text: str, *args: object) -> bool:
        return limit.filter(logging.LogRecord("x", logging.WARNING, "", 0, text, args, None))

    assert sum(passes("bad request %d", i) for i in range(1_000)) == 20
    assert passes("another line")


@pytest.mark.parametrize(
    ("peer", "forwarded", "name"),
    [
        ("192.0.2.1", "198.51.100.1", "192.0.2.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::17]:4711", "2001:db8::/64"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("::ffff:192.0.2.1", None, "192.0.2.1"),
        ("2001:db8:0:0:1::2", None, "2001:db8::/64"),
    ],
)
def test_a_client_is_an_address(peer: str, forwarded: str | None, name: str) -> None:
    """A client cannot choose its own name; only trusted proxies tell of others."""
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    clients = Clients(["10.0.0.0/8"])
    assert clients.name({"client": (peer, 1), "headers": headers}) == name


def test_a_proxy_that_is_not_named_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """All its users then share one client's part of each bound, and nothing else would say why."""
    headers = [(b"x-forwarded-for", b"198.51.100.1")]
    named = Clients(["10.0.0.0/8"])
    for peer in ("10.0.0.1", "198.51.100.1"):  # the proxy; a server has read the header already
        named.name({"client": (peer, 0), "headers": headers})
    assert not caplog.records
    unnamed = Clients()
    for _ in range(3):
        assert unnamed.name({"client": ("10.0.0.1", 1), "headers": headers}) == "10.0.0.1"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "STREAMQ_GATEWAY_TRUSTED_PROXIES" in caplog.text


def test_settings_name_the_bounds_of_serve() -> None:
    """An operator sets them without code."""
    settings = load_settings(gateway_max_connections=7, gateway_trusted_proxies="10.0.0.0/8, ::1")
    options = GatewayOptions.from_settings(settings)
    assert options.max_connections == 7
    assert options.trusted_proxies == ("10.0.0.0/8", "::1")


async def test_looking_for_a_stream_that_others_watch_costs_nothing(
    start: Serve, queue: WatchedQueue
) -> None:
    """Many pages of the same stream ask the backend once."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        served = await start(client_share=1)
        before = queue.count("describe")
        async with served.events("s"):
            for _ in range(10):
                async with served.events("s") as source:
                    await anext(source.aiter_sse())
        assert queue.count("describe") - before == 1
