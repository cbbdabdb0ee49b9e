"""Requests for many streams that cannot be answered, ids, and the bounds of a connection."""

from __future__ import annotations

import base64
import json
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import open_writer
from streamq.gateway._error_responses import BadRequestError
from streamq.gateway._many._places_token import PlacesToken
from streamq.gateway._places import EventPlace
from streamq.records._wire import MAX_EPOCH

from .many import Reader, address
from .served import Serve, WatchedQueue, eventually

TOKEN = str(PlacesToken())

BAD_ADDRESSES = {
    "nothing": ("/events", "asks for no stream"),
    "an empty name": ("/events?stream=", "1 to 1536 bytes"),
    "an endless name": (f"/events?stream={'x' * 2_000}", "1 to 1536 bytes"),
    "an endless prefix": (f"/events?prefix={'x' * 2_000}", "longer than 1,536 bytes"),
    "too many streams": (address(*(f"s{i}" for i in range(257))), "POST /events takes up to 1,000"),
    "too many prefixes": (address(prefixes=tuple(f"p{i}" for i in range(17))), "at most 16"),
    "a place of one stream": ("/events?stream=a&after=3@1764523000000000", "begins with 'm1.'"),
    "no id": ("/events?stream=a&after=m1.!!", "begins with 'm1.'"),
    "half of an id": (f"/events?stream=a&after={TOKEN[:-3]}", "begins with 'm1.'"),
    "two places": (f"/events?stream=a&after={TOKEN}&last_event_id={TOKEN}", "exclude each other"),
    "from elsewhere": ("/events?stream=a&from=middle", "'beginning', 'last' or 'tail'"),
    "which attempts": ("/events?stream=a&attempts=first", "'all' or 'last'"),
    "no number to wait": ("/events?stream=a&wait=soon", "0 to 300"),
    "an endless wait": ("/events?stream=a&wait=301", "0 to 300"),
}


@pytest.mark.parametrize("kind", BAD_ADDRESSES)
async def test_a_get_that_cannot_be_answered_says_why(kind: str, start: Serve) -> None:
    """The answer has the value that was seen, and the next step."""
    path, message = BAD_ADDRESSES[kind]
    answer = await (await start()).get(path)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert message in answer.json()["message"]


BAD_BODIES: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "asks for no stream"),
    "no body": (b"", "has to be a JSON object"),
    "garbage": (b"\x00\xff", "has to be a JSON object"),
    "a list": (["a"], "has to be a JSON object"),
    "deep": (b"[" * 100_000, "has to be a JSON object"),
    "an unknown field": ({"streams": ["a"], "stream": "a"}, "unknown field 'stream'"),
    "a name alone": ({"streams": "a"}, "list of texts"),
    "a number": ({"streams": [1]}, "list of texts"),
    "an empty name": ({"streams": [""]}, "1 to 1536 bytes"),
    "half of a character": ({"streams": ["\ud800"]}, "lone surrogate"),
    "half of a character in a prefix": ({"prefixes": ["\ud800"]}, "lone surrogate"),
    "too many streams": ({"streams": [f"s{i}" for i in range(1_001)]}, "at most 1,000"),
    "places of no stream": ({"streams": ["a"], "after": ["3@5"]}, "object of places"),
    "a place that is a number": ({"streams": ["a"], "after": {"a": 3}}, "object of places"),
    "a place of many": ({"streams": ["a"], "after": {"a": TOKEN}}, "after['a'] is"),
    "from a number": ({"streams": ["a"], "from": 3}, "'beginning', 'last' or 'tail'"),
    "from a list": ({"streams": ["a"], "from": ["tail"]}, "'beginning', 'last' or 'tail'"),
    "which attempts": ({"streams": ["a"], "attempts": 1}, "'all' or 'last'"),
    "an endless wait": ({"streams": ["a"], "wait": 1e9}, "0 to 300"),
    "no wait": ({"streams": ["a"], "wait": True}, "0 to 300"),
    "a negative wait": ({"streams": ["a"], "wait": -1}, "0 to 300"),
    "too large": (b'{"streams": ["' + b"x" * 1_100_000 + b'"]}', "larger than 1,048,576 bytes"),
}


@pytest.mark.parametrize("kind", BAD_BODIES)
async def test_a_post_that_cannot_be_answered_says_why(kind: str, start: Serve) -> None:
    """The answer has the value that was seen, and the next step."""
    body, message = BAD_BODIES[kind]
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = await (await start()).client.post("/events", content=content)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert message in answer.json()["message"]


PLACES = st.builds(
    EventPlace,
    st.integers(0, MAX_EPOCH),
    st.one_of(st.just(0), st.integers(1, MAX_EPOCH), st.integers(1_764 * 10**12, 1_765 * 10**12)),
)


@given(st.dictionaries(st.text(min_size=1), PLACES, max_size=30), st.lists(PLACES, max_size=5))
def test_an_id_has_every_place(places: dict[str, EventPlace], moves: list[EventPlace]) -> None:
    """Whatever the places are, the id that comes back names each of them, and is the same id."""
    token = PlacesToken()
    for name, place in places.items():
        assert token.admit(name, 100)
        token.set(name, place)
    for name, place in zip(list(places), moves, strict=False):
        ids = token.ids_of(name)
        made = ids.at(place).decode()
        token.set(name, place)
        places[name] = place
        assert made == str(token)
    again = PlacesToken.parse("after", str(token))
    assert {name: again.of(name) for name in places} == places
    assert str(again) == str(token)
    assert len(again) == len(places)


@given(st.binary(max_size=60), st.integers(0, 3))
def test_whatever_is_no_id_is_refused(data: bytes, cut: int) -> None:
    """Or is one: what is read is what would be written, so that no two ids mean the same."""
    text = "m1." + base64.urlsafe_b64encode(data).decode().rstrip("=" * cut)
    try:
        token = PlacesToken.parse("after", text)
    except BadRequestError:
        return
    again = PlacesToken.parse("after", str(token))
    assert str(again) == str(token)
    assert len(str(token)) <= len(text)


def test_an_id_of_as_many_streams_as_there_may_be_passes_proxies() -> None:
    """nginx takes a header of 8 KiB; so ids are bounded, at any age and number of events."""
    token = PlacesToken()
    for i in range(256):
        began = 1_764_523_000_000_000 + i * 86_400_000_000  # a day apart
        token.set(f"stream {i}", EventPlace(10_000_000 + i, began))
    assert len(str(token)) < 8_000
    assert str(token).replace(".", "").replace("-", "").replace("_", "").isalnum()


async def test_streams_of_a_connection_are_counted_for_the_client(
    start: Serve, queue: WatchedQueue
) -> None:
    """One client must not follow all that the gateway follows; the rest of its page goes on."""
    served = await start(max_followed=4, retry_seconds=0.05)
    reader = Reader(served)
    async with AsyncExitStack() as stack:
        writers = {
            name: await stack.enter_async_context(open_writer(name, queue=queue))
            for name in ("s0", "s1", "s2")
        }
        source = await stack.enter_async_context(reader.get(address(*writers, wait="60")))
        events = reader.events(source)
        await reader.until(events, lambda: bool(reader.errors) and len(reader.places) == 2)
        [(refused, code, goes_on)] = reader.errors
        assert refused is not None
        assert (code, goes_on) == ("client_limit", True)
        late = writers.pop(refused)
        for each in writers.values():
            await each.finish()
        await reader.until(events, lambda: refused in reader.places)
        await late.finish()
        await reader.rest(events)
    assert sorted(reader.ended) == ["s0", "s1", "s2"]


async def test_a_connection_counts_as_one(start: Serve, queue: WatchedQueue) -> None:
    """However many streams it has; a client beyond its part hears 429, as for one stream."""
    served = await start(max_connections=4)
    reader = Reader(served)
    path = address("a", "b", "c", wait="60")
    async with reader.get(path), reader.get(path):
        assert served.gateway.statistics().connections == 2
        answer = await served.get(path)
        assert (answer.status_code, answer.json()["error"]) == (429, "client_limit")
    await eventually(lambda: served.gateway.statistics().connections == 0)
    await eventually(lambda: served.gateway.statistics().waiting == 0)


async def test_a_head_request_reads_nothing(start: Serve, queue: WatchedQueue) -> None:
    """It says whether there is something, and leaves nothing."""
    async with open_writer("a", queue=queue) as writer:
        await writer.send_chunk("x")
    served = await start()
    assert (await served.client.head(address("a", "b"))).status_code == 200
    assert (await served.client.head(address("b"))).status_code == 404
    await eventually(lambda: served.gateway.statistics().streams == 0)
    with pytest.raises(httpx.HTTPStatusError):
        (await served.client.put("/events")).raise_for_status()
