"""The events that a client of ``/streams/{name}/events`` gets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from httpx_sse import ServerSentEvent

from streamq import OnRetry, describe, open_writer

from .served import Serve, WatchedQueue, number


def brief(event: ServerSentEvent) -> tuple[str, str, Any]:
    body = event.json()
    return number(event), event.event, body.get("value", body.get("attempt"))


async def test_a_watching_client_sees_every_event_as_it_is_written(
    start: Serve, queue: WatchedQueue
) -> None:
    """With streaming, the first chunk arrives before the second is written."""
    served = await start()
    async with open_writer("s", queue=queue) as writer, served.events("s", "wait=5") as source:
        events = source.aiter_sse()
        for i in range(5):
            await writer.send_chunk(f"token {i}")
            assert brief(await anext(events)) == (str(i + 1), "chunk", f"token {i}")
        await writer.finish()
        end = await anext(events)
        assert (number(end), end.event) == ("6", "end")
        assert end.json() == {"event": "end", "offset": 6, "attempt": 1, "state": "END"}
        with pytest.raises(StopAsyncIteration):
            await anext(events)


async def test_headers_forbid_caching_and_buffering(start: Serve, queue: WatchedQueue) -> None:
    """A proxy that stores or buffers the response would delay tokens."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("x")
    served = await start()
    async with served.events("s") as source:
        headers = source.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert headers["cache-control"] == "no-store, no-transform"
        assert headers["x-accel-buffering"] == "no"


async def test_the_bytes_on_the_wire(start: Serve, queue: WatchedQueue) -> None:
    """Clients in every language rely on these exact frames; the retry hint comes first."""
    async with open_writer("s", queue=queue, epoch=5) as writer:
        await writer.send_chunk({"a": [1, None]})
        await writer.send_chunk(b"\x00\xff")
    served = await start(retry_seconds=1.5)
    assert (await served.raw("s")).decode() == (
        "retry: 1500\n"
        "id: 1@5\nevent: chunk\n"
        'data: {"event":"chunk","offset":1,"attempt":1,"seq":0,"value":{"a":[1,null]}}\n\n'
        "id: 2@5\nevent: chunk\n"
        'data: {"event":"chunk","offset":2,"attempt":1,"seq":1,"base64":"AP8="}\n\n'
        "id: 3@5\nevent: end\n"
        'data: {"event":"end","offset":3,"attempt":1,"state":"END"}\n\n'
    )


async def test_line_separators_and_emoji_survive(start: Serve, queue: WatchedQueue) -> None:
    """Some clients split lines on U+2028 and similar characters, so these must be escaped."""
    texts = ["a\u2028b\u2029c\u0085d", "one\ntwo\r\nthree\rfour", "🌊🏄🏽‍♀️ 漢字", "", "\x00\x1f"]
    async with open_writer("s", queue=queue) as writer:
        for text in texts:
            await writer.send_chunk(text)
    served = await start()
    assert await served.values("s") == texts
    raw = await served.raw("s")
    assert raw.isascii()
    assert b"\r" not in raw
    assert raw.count(b"\ndata: ") == len(texts) + 1


async def test_resuming_anywhere_continues_with_the_next_event(
    start: Serve, queue: WatchedQueue
) -> None:
    """A client that reconnects within a packed record gets each event once."""
    async with open_writer("s", queue=queue) as writer:
        for i in range(10):
            await writer.send_chunk(i)
    assert (await describe("s", queue=queue)).records == 2  # the opening, and all chunks in one
    served = await start()
    for after in range(11):
        for query, header in ((f"after={after}", None), ("", str(after))):
            events = await served.collect("s", query, header)
            assert [int(number(event)) for event in events] == list(range(after + 1, 12))


async def test_the_header_wins_over_the_address(start: Serve, queue: WatchedQueue) -> None:
    """EventSource repeats its original address when it reconnects; the header is newer."""
    async with open_writer("s", queue=queue) as writer:
        for i in range(5):
            await writer.send_chunk(i)
    served = await start()
    for query in ("after=1", "last_event_id=1", "from=tail", "from=last", "from=beginning"):
        events = await served.collect("s", query, "4")
        assert [number(event) for event in events] == ["5", "6"]


async def test_a_client_that_has_the_end_gets_204(start: Serve, queue: WatchedQueue) -> None:
    """EventSource reconnects after every close; only 204 stops it for good."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("x")
    served = await start(linger_seconds=0.01)
    response = await served.get("/streams/s/events?after=2")
    assert (response.status_code, response.content) == (204, b"")


async def test_an_offset_beyond_the_newest_event_is_refused(
    start: Serve, queue: WatchedQueue
) -> None:
    """After a delete and a new start, waiting for that offset would lose events."""
    served = await start()
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("x")
        await writer.flush()
        response = await served.get("/streams/s/events?after=2")
    assert response.status_code == 409
    assert response.json()["error"] == "cursor"
    assert "newest event 1" in response.json()["message"]


async def test_a_malformed_offset_is_refused(start: Serve, queue: WatchedQueue) -> None:
    """Starting from the beginning instead would repeat everything to a faulty client."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("x")
    served = await start()
    texts = ("x", "-1", "1.5", "+1", "9" * 30, "1,2", "1@", "@1", "1@x", "1@2@3", "1@" + "9" * 19)
    path = "/streams/s/events"
    responses = [await served.client.get(path, headers={"Last-Event-ID": text}) for text in texts]
    for text in (*texts, "", "1 ", "\u0663"):
        for name in ("after", "last_event_id"):
            responses.append(await served.client.get(path, params={name: text}))
    for response in responses:
        assert response.status_code == 400
        assert response.json()["error"] == "bad_request"
        assert "id of an event" in response.json()["message"]


async def test_parameters_that_make_no_sense_are_refused(start: Serve) -> None:
    """A parameter that is accepted and ignored costs users hours."""
    served = await start()
    both = "after=1&last_event_id=1"
    for query in ("after=1&from=tail", both, "from=middle", "wait=301", "wait=x", "wait=-1"):
        response = await served.get(f"/streams/s/events?{query}")
        assert response.status_code == 400
        assert response.json()["error"] == "bad_request"


async def test_an_unknown_stream_is_not_found(start: Serve, queue: WatchedQueue) -> None:
    """A mistyped name must not look like a silent stream."""
    served = await start()
    response = await served.get("/streams/nobody/events")
    assert response.status_code == 404
    assert response.json() == {
        "error": "stream_not_found",
        "message": "there is no stream default/nobody",
    }


async def test_a_stream_may_be_watched_before_it_exists(start: Serve, queue: WatchedQueue) -> None:
    """A page that starts a workflow opens its stream first, so as to miss nothing."""
    served = await start()
    async with served.events("later", "wait=5") as source:
        assert source.response.status_code == 200
        async with open_writer("later", queue=queue) as writer:
            await writer.send_chunk("here")
        events = [event async for event in source.aiter_sse()]
    assert [brief(event)[:2] for event in events] == [("1", "chunk"), ("2", "end")]


async def test_waiting_for_a_stream_has_an_end(start: Serve) -> None:
    """A connection for a mistyped name must not stay open for ever."""
    served = await start()
    (error,) = await served.collect("never", "wait=0")
    assert (error.event, error.id) == ("error", "")
    assert error.json()["error"] == "stream_not_found"
    assert error.retry is not None


async def test_an_attempt_without_chunks_counts_as_existing(
    start: Serve, queue: WatchedQueue
) -> None:
    """A model that needs a minute for its first token has still started."""
    served = await start()
    async with served.events("s", "wait=5") as early:
        async with open_writer("s", queue=queue) as writer, served.events("s") as late:
            assert late.response.status_code == 200
            await writer.send_chunk("x")
        assert [event.event async for event in early.aiter_sse()] == ["chunk", "end"]


async def test_the_tail_begins_now(start: Serve, queue: WatchedQueue) -> None:
    """Events before the request are left out, and events right after the answer are not."""
    served = await start()
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("old")
        await writer.flush()
        async with served.events("s", "from=tail") as source:
            await writer.send_chunk("new")
            await writer.finish()
            events = [event async for event in source.aiter_sse() if event.data]
    assert [brief(event) for event in events] == [("2", "chunk", "new"), ("3", "end", 1)]


async def test_the_tail_is_resolved_once(start: Serve, queue: WatchedQueue) -> None:
    """A client that is cut off before its first event would otherwise miss events."""
    served = await start(max_age_seconds=0.05)
    async with open_writer("s", queue=queue, epoch=5) as writer:
        await writer.send_chunk("old")
        await writer.flush()
        assert (await served.raw("s", "from=tail")).startswith(b"retry: 2000\nid: 1@5\n\n")
    assert await served.values("missing", "from=tail&wait=0") == []


async def test_the_tail_of_an_ended_stream_is_its_end(start: Serve, queue: WatchedQueue) -> None:
    """A client that connects late learns that the stream has ended."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("x")
    served = await start()
    (end,) = await served.collect("s", "from=tail")
    assert (number(end), end.event) == ("2", "end")


async def test_the_latest_value_comes_first(start: Serve, queue: WatchedQueue) -> None:
    """A dashboard that is opened at any moment shows the current value at once."""
    served = await start()
    async with open_writer("s", queue=queue, epoch=5) as writer:
        for value in ("a", "b", "c"):
            await writer.send_chunk(value)
        await writer.flush()
        async with served.events("s", "from=last") as source:
            await writer.send_chunk("d")
            await writer.finish()
            events = [event async for event in source.aiter_sse() if event.data]
    assert [brief(event) for event in events] == [
        ("3", "chunk", "c"),
        ("4", "chunk", "d"),
        ("5", "end", 1),
    ]
    late = await served.collect("s", "from=last")
    assert [brief(event) for event in late] == [("4", "chunk", "d"), ("5", "end", 1)]
    assert await served.values("missing", "from=last&wait=0") == []


async def test_a_client_of_the_latest_value_resumes_exactly(
    start: Serve, queue: WatchedQueue
) -> None:
    """One that is cut off before its first event, or at any later one, loses and repeats none."""
    served = await start(max_age_seconds=0.05)
    async with open_writer("s", queue=queue, epoch=5) as writer:
        got, last_id = [], None
        for value in ("a", "b", "c"):
            await writer.send_chunk(value)
            await writer.flush()
            if last_id is None:
                opening = await served.raw("s", "from=last")
                assert opening.startswith(b"retry: 2000\nid: 0\n\n"), "the place before the value"
                last_id = "0"
            for event in await served.collect("s", "from=last", last_event_id=last_id):
                got.append(brief(event))
                last_id = event.id
    assert [(offset, value) for offset, kind, value in got if kind == "chunk"] == [
        ("1", "a"),
        ("2", "b"),
        ("3", "c"),
    ]


async def test_a_value_that_a_reset_has_voided_is_not_shown(
    start: Serve, queue: WatchedQueue
) -> None:
    """A dashboard would show the number of an attempt that has failed."""
    served = await start()
    first = await open_writer("s", queue=queue, epoch=1)
    await first.send_chunk("draft")
    await first.aclose()
    async with open_writer("s", queue=queue, epoch=2) as second:
        await second.flush()
        async with served.events("s", "from=last") as source:
            await second.send_chunk("final")
            await second.finish()
            live = [brief(event) async for event in source.aiter_sse() if event.data]
    assert live == [("3", "chunk", "final"), ("4", "end", 2)]


async def test_no_long_stream_is_read_for_its_latest_value(
    start: Serve, queue: WatchedQueue
) -> None:
    """Many dashboards of a stream that the ring cannot hold cost a few records each."""
    served = await start(ring_bytes=2_000)
    async with open_writer("s", queue=queue) as writer:
        for number_ in range(300):
            await writer.send_chunk(str(number_) * 50)
            await writer.flush()
    for _ in range(3):
        (chunk, end) = await served.collect("s", "from=last")
        assert brief(chunk) == ("300", "chunk", "299" * 50)
        assert end.event == "end"
    assert queue.records_read <= 20


async def test_a_retry_is_delivered_as_a_reset(start: Serve, queue: WatchedQueue) -> None:
    """A page can remove the old text only if it knows where the new one begins."""
    served = await start()
    async with served.events("s", "wait=5") as source:
        first = await open_writer("s", queue=queue, epoch=1)
        await first.send_chunk("draft")
        await first.aclose()
        async with open_writer("s", queue=queue, epoch=2) as second:
            await second.send_chunk("final")
        live = [brief(event) async for event in source.aiter_sse()]
    assert live == [
        ("1", "chunk", "draft"),
        ("2", "reset", 2),
        ("3", "chunk", "final"),
        ("4", "end", 2),
    ]
    assert [brief(event) for event in await served.collect("s")] == live


async def test_a_resumed_attempt_continues_without_a_reset(
    start: Serve, queue: WatchedQueue
) -> None:
    """If the producer resumes, readers get one uninterrupted text."""
    first = await open_writer("s", queue=queue, epoch=1, on_retry=OnRetry.RESUME)
    await first.send_chunk("a")
    await first.aclose()
    async with open_writer("s", queue=queue, epoch=2, on_retry=OnRetry.RESUME) as second:
        await second.send_chunk("b")
    served = await start()
    assert [event.event for event in await served.collect("s")] == ["chunk", "chunk", "end"]


async def test_a_failure_of_the_producer_is_delivered(start: Serve, queue: WatchedQueue) -> None:
    """A stream that failed must not look like one that is complete."""
    writer = await open_writer("failed", queue=queue)
    await writer.fail(ValueError("no\nmore tokens"))
    await writer.aclose()
    writer = await open_writer("cancelled", queue=queue)
    await writer.cancel("asked to stop")
    await writer.aclose()
    served = await start()
    (failed,), (cancelled,) = await served.collect("failed"), await served.collect("cancelled")
    assert failed.event == cancelled.event == "end"
    assert failed.json() == {
        "event": "end",
        "offset": 1,
        "attempt": 1,
        "state": "ERROR",
        "message": "no\nmore tokens",
        "error_type": "ValueError",
        "retryable": False,
    }
    assert cancelled.json()["state"] == "CANCELLED"


async def test_events_that_are_no_longer_stored_are_delivered_as_a_gap(
    start: Serve, queue: WatchedQueue
) -> None:
    """Trimmed events are never skipped silently, and a gap never covers received events."""
    async with open_writer("s", queue=queue) as writer:
        for i in range(6):
            await writer.send_chunk(i)
            await writer.flush()
    queue.trimmed = 4  # the opening and events 1 to 3
    served = await start()
    events = await served.collect("s")
    assert [(number(event), event.event) for event in events[:2]] == [("3", "gap"), ("4", "chunk")]
    assert events[0].json() == {"event": "gap", "first": 1, "offset": 3, "attempt": 1}
    events = await served.collect("s", last_event_id="2")
    assert events[0].json() == {"event": "gap", "first": 3, "offset": 3, "attempt": 1}
    assert [number(event) for event in events] == ["3", "4", "5", "6", "7"]


async def test_heartbeats_do_not_change_the_last_event_id(
    start: Serve, queue: WatchedQueue
) -> None:
    """Heartbeats keep a silent connection open through proxies; only events have an id."""
    served = await start(heartbeat_seconds=0.02, max_age_seconds=0.3)
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("x")
        await writer.flush()
        raw = await served.raw("s")
    assert raw.count(b"\n:\n") >= 2
    assert raw.count(b"id: ") == 1
    assert raw.replace(b":\n", b"", 1).endswith(b"\n")


async def test_a_connection_that_reaches_its_age_can_be_resumed(
    start: Serve, queue: WatchedQueue
) -> None:
    """The client continues where it was, and the resources of dead clients are freed."""
    served = await start(max_age_seconds=0.5)
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        first, ending = await served.collect("s")
        await writer.send_chunk("b")
        await writer.flush()
        second, _ = await served.collect("s", last_event_id=first.id)
    assert (number(first), number(second)) == ("1", "2")
    assert (ending.event, ending.json()) == (
        "reconnect",
        {"event": "reconnect", "reason": "max_age", "after": first.id},
    )


async def test_head_answers_without_streaming(start: Serve, queue: WatchedQueue) -> None:
    """A HEAD request that streams would never end."""
    served = await start()
    async with open_writer("s", queue=queue), asyncio.timeout(5):
        response = await served.client.head("/streams/s/events")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
