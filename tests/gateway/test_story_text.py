"""Tests the text of the last attempt in one call (``GET /story/NAME`` as text)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import httpx
import pytest

from streamq import Settings
from streamq.driver import StreamId

from .served import Serve, Served, WatchedQueue, eventually
from .test_last_attempt import attempt, shown


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_text_is_that_of_the_last_attempt_with_its_state(
    start: Serve, queue: WatchedQueue
) -> None:
    """A page that loads late shows the answer by one request, and goes on from there."""
    served = await start()
    await attempt(queue, "wr", "ong")
    writer = await attempt(queue, "Hel", "lo")
    answer = await served.get("/story/a?as=text")
    assert (answer.status_code, answer.text) == (200, "Hello")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Streamq-State"] == "OPEN"
    assert answer.headers["Streamq-Attempt"] == "2"
    assert answer.headers["Streamq-Offset"] == "5"
    await writer.send_chunk("!")
    await writer.finish()
    rest = await served.collect("a", f"after={answer.headers['Streamq-After']}")
    assert shown(rest) == ["!", "end"]
    ended = await served.get("/story/a?as=text")
    assert (ended.text, ended.headers["Streamq-State"]) == ("Hello!", "END")
    assert (await served.client.get(f"/events/a?after={ended.headers['Streamq-After']}")).text == ""


@pytest.mark.parametrize(
    ("accept", "is_text"),
    [
        ("text/plain", True),
        ("text/plain, */*", True),
        ("text/plain, application/json;q=0.5", True),
        ("application/json, text/plain, */*", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", False),
        ("text/plain;q=0", False),
        ("text/plain;q=x", False),
        ("", False),
    ],
)
async def test_text_is_sent_to_who_prefers_it(
    start: Serve, queue: WatchedQueue, accept: str, is_text: bool
) -> None:
    """Clients that name both, as many libraries do by themselves, expect JSON."""
    await attempt(queue, "x")
    served = await start()
    answer = await served.client.get("/story/a", headers={"Accept": accept})
    assert answer.headers["Content-Type"].startswith("text/plain") == is_text
    assert answer.headers["Vary"] == "Accept"
    form = "json" if is_text else "text"
    other = await served.client.get(f"/story/a?as={form}", headers={"Accept": accept})
    assert other.headers["Content-Type"].startswith("text/plain") != is_text


async def test_text_of_a_long_stream_is_whole(start: Serve, queue: WatchedQueue) -> None:
    """JSON has pages; a program that wants the text wants all of it."""
    lines = [f"{number}: {'x' * 1_000}\n" for number in range(3_000)]
    await attempt(queue, "void")
    writer = await attempt(queue, *lines)
    await writer.finish()
    served = await start()
    answer = await served.get("/story/a?as=text")
    assert answer.text == "".join(lines)
    assert len(answer.content) > 3_000_000


async def test_values_that_are_no_text_have_a_form(start: Serve, queue: WatchedQueue) -> None:
    """Bytes are text, also across chunks; other values are lines of JSON, as tail prints them."""
    sea = "Straße".encode()
    writer = await attempt(queue, sea[:5], sea[5:], {"käse": 1}, {"b": 2}, "end", sea[:5])
    await writer.finish()
    served = await start()
    answer = await served.get("/story/a?as=text")
    assert answer.text == 'Straße\n{"käse":1}\n{"b":2}\nendStra\ufffd'


async def test_text_of_nothing_is_empty(start: Serve, queue: WatchedQueue) -> None:
    """An attempt that has sent nothing is there; a stream that nobody opened is not."""
    served = await start()
    writer = await attempt(queue)
    answer = await served.get("/story/a?as=text")
    assert (answer.status_code, answer.text, answer.headers["Streamq-After"]) == (200, "", "0")
    missing = await served.get("/story/none?as=text")
    assert (missing.status_code, missing.json()["error"]) == (404, "stream_not_found")
    await writer.send_chunk("a")
    await writer.flush()
    await attempt(queue)
    again = await attempt(queue, "b")
    await again.finish()
    assert (await served.get("/story/a?as=text")).text == "b"


async def test_reset_that_is_the_newest_event_is_not_waited_for(
    start: Serve, queue: WatchedQueue
) -> None:
    """An attempt that has begun and said nothing has an empty text, at once."""
    await attempt(queue, "a")
    writer = await attempt(queue)
    served = await start()
    answer = await served.get("/story/a?as=text")
    assert (answer.text, answer.headers["Streamq-Offset"]) == ("", "2")
    assert served.gateway.statistics().connections == 0
    await writer.finish()


async def test_what_is_asked_for_wrongly_is_refused(start: Serve, queue: WatchedQueue) -> None:
    """A page of text could not say that a reset has made the page before it void."""
    await attempt(queue, "a")
    served = await start()
    for query in ("as=text&after=1", "as=text&from=tail", "as=html"):
        answer = await served.get(f"/story/a?{query}")
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_request"), query


async def test_missing_beginning_is_an_error_and_no_text(start: Serve, queue: WatchedQueue) -> None:
    """Half of an answer must not look whole."""
    await attempt(queue, "a")
    writer = await attempt(queue, "b", resumes=True)
    await writer.send_chunk("c")
    await writer.finish()
    queue.trimmed = 2
    served = await start()
    answer = await served.get("/story/a?as=text")
    assert (answer.status_code, answer.json()["error"]) == (410, "trimmed")
    assert "as=json" in answer.json()["message"]


async def test_text_that_cannot_be_read_to_its_end_is_cut(
    start: Serve, queue: WatchedQueue
) -> None:
    """A response that ends in good order has to be whole."""
    lines = [f"{number}: {'x' * 10_000}\n" for number in range(1_000)]
    writer = await attempt(queue, *lines)
    await writer.finish()
    served = await start()
    with pytest.raises(httpx.RemoteProtocolError):
        await _read_text(served, lambda: served.gateway.end_readers(StreamId("default", "a")))


async def test_client_that_leaves_in_the_middle_holds_nothing(
    start: Serve, queue: WatchedQueue
) -> None:
    """A download that is given up must not keep its place among the connections."""
    writer = await attempt(queue, *(["x" * 100_000] * 200))
    await writer.finish()
    served = await start(client_share=1, max_connections=1)
    for _ in range(3):
        async with served.client.stream("GET", "/story/a?as=text") as answer:
            assert answer.status_code == 200
            async for _ in answer.aiter_bytes():
                break
        await eventually(lambda: not served.gateway.statistics().connections)
        await eventually(lambda: served.gateway.statistics().page_waits == 0)
    assert (await served.get("/story/a?as=text")).status_code == 200


async def test_stopping_gateway_cuts_text(start: Serve, queue: WatchedQueue) -> None:
    """It must stop in seconds, and a client must not take a part for the whole."""
    writer = await attempt(queue, *(["x" * 100_000] * 200))
    await writer.finish()
    served = await start()
    with pytest.raises(httpx.RemoteProtocolError):
        await _read_text(served, served.gateway.stop_connections)


async def _read_text(served: Served, meanwhile: Callable[[], None]) -> None:
    async with served.client.stream("GET", "/story/a?as=text") as answer:
        async for _ in answer.aiter_bytes():
            meanwhile()


async def test_page_of_another_origin_reads_the_state(
    queue: WatchedQueue, settings: Settings, stack: AsyncExitStack
) -> None:
    """A browser shows a script only headers that the server names."""
    changed = settings.model_copy(update={"gateway_origins": "https://chat.example.org"})
    served = await Serve(stack, queue, changed)()
    await attempt(queue, "a")
    headers = {"Origin": "https://chat.example.org"}
    answer = await served.client.get("/story/a?as=text", headers=headers)
    assert "Streamq-State" in answer.headers["Access-Control-Expose-Headers"]


async def test_text_ends_although_its_producer_goes_on(start: Serve, queue: WatchedQueue) -> None:
    """What is there now has to be answered now, and its place has to fit."""
    served = await start()
    writer = await attempt(queue, "now ")
    is_over = asyncio.Event()

    async def go_on() -> None:
        while not is_over.is_set():
            await writer.send_chunk("later ")
            await writer.flush()
            await asyncio.sleep(0)

    going = asyncio.create_task(go_on())
    try:
        for _ in range(5):
            answer = await served.get("/story/a?as=text")
            chunks = int(answer.headers["Streamq-Offset"])
            assert answer.text == "now " + "later " * (chunks - 1)
    finally:
        is_over.set()
        await going
