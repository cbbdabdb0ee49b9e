"""Many streams on one connection: order, places, endings, and what one stream does to others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from streamq import CorruptRecordError, Settings, open_writer
from streamq.driver import ChunkQueue
from streamq.testing import Block, Call, Fail, Fault

from .many import Reader, address
from .served import Serve, WatchedQueue, eventually


async def write(queue: ChunkQueue, name: str, chunks: int, *, text: str = "") -> None:
    """Write a stream that has ended."""
    async with open_writer(name, queue=queue) as writer:
        for i in range(chunks):
            await writer.send_chunk(f"{name} {i}{text}")


async def test_streams_of_one_connection_arrive_as_they_are_written(
    start: Serve, queue: WatchedQueue
) -> None:
    """Six connections block an origin in a browser, so one has to carry all streams of a page."""
    served = await start()
    async with (
        open_writer("a", queue=queue) as a,
        open_writer("b", queue=queue) as b,
        asyncio.timeout(20),
    ):
        reader = Reader(served)
        async with reader.get(address("a", "b", wait="5")) as source:
            events = reader.events(source)
            for _ in range(2):
                assert (await anext(events)).event == "stream"
            for i in range(5):
                for name, writer in (("a", a), ("b", b)):
                    await writer.send_chunk(i)
                    data = reader.take(await anext(events))
                    assert (data["stream"], data["value"]) == (name, i)
            await b.finish()
            assert reader.take(await anext(events))["stream"] == "b"
            await a.send_chunk(5)
            assert reader.take(await anext(events))["value"] == 5
            await a.finish()
            assert reader.take(await anext(events))["event"] == "end"
            with pytest.raises(StopAsyncIteration):
                await anext(events)


async def test_the_bytes_on_the_wire(start: Serve, queue: WatchedQueue) -> None:
    """Clients in every language rely on these exact frames; a POST has the same without ids."""
    async with open_writer("a", queue=queue, epoch=5) as writer:
        await writer.send_chunk({"x": 1})
    served = await start(retry_seconds=1.5)
    body = {"streams": ["a"]}
    frames = (
        'event: stream\ndata: {"event":"stream","stream":"a","place":"0","state":"OPEN",'
        '"is_new":false}\n\n',
        'event: chunk\ndata: {"stream":"a","place":"1@5","event":"chunk","offset":1,"attempt":1,'
        '"seq":0,"value":{"x":1}}\n\n',
        'event: end\ndata: {"stream":"a","place":"2@5","event":"end","offset":2,"attempt":1,'
        '"state":"END"}\n\n',
    )
    response = await served.client.post("/events", json=body)
    assert response.text == "retry: 1500\n" + "".join(frames)
    response = await served.get("/events?stream=a")
    ids = [line[4:] for line in response.text.splitlines() if line.startswith("id: ")]
    expected = "".join(f"id: {each}\n{frame}" for each, frame in zip(ids, frames, strict=True))
    assert response.text == "retry: 1500\n" + expected
    assert all(each.startswith("m1.") for each in ids)


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize("seed", range(6))
async def test_any_number_of_cuts_repeats_and_loses_nothing(
    start: Serve, queue: WatchedQueue, method: str, seed: int
) -> None:
    """A client that loses its connection anywhere goes on in each stream at its own place."""
    chance = random.Random(seed)
    names = [f"s{i}" for i in range(chance.randint(2, 12))]
    lengths = {name: chance.choice([0, 1, 5, 40, 300]) for name in names}
    served = await start(linger_seconds=0.01)

    async def produce(name: str) -> None:
        async with open_writer(name, queue=queue) as writer:
            for i in range(lengths[name]):
                await writer.send_chunk(i)
                if chance.random() < 0.1:
                    await writer.flush()
                    await asyncio.sleep(0)

    reader = Reader(served)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(produce(name))
        while len(reader.ended) < len(names):
            most = chance.choice([1, 2, 7, 50, 400])
            if method == "get":
                opening = reader.get(address(*names, wait="30"))
            else:
                opening = reader.post({"streams": names, "wait": 30})
            async with opening as source:
                assert source.response.status_code == 200
                await reader.read(source, most)
    for name in names:
        assert reader.offsets[name] == list(range(1, lengths[name] + 2))
        assert reader.values[name] == list(range(lengths[name]))
    if method == "get":
        async with reader.get(address(*names)) as source:
            assert source.response.status_code == 204
    else:
        async with reader.post({"streams": names}) as source:
            assert source.response.status_code == 204


async def test_two_hundred_streams_need_no_setting(start: Serve, queue: WatchedQueue) -> None:
    """A console with two hundred jobs is one page of one user."""
    names = [f"job-{i}" for i in range(200)]
    for name in names:
        await write(queue, name, 2)
    served = await start()
    for method in ("get", "post"):
        reader = Reader(served)
        opening = reader.get(address(*names))
        async with opening if method == "get" else reader.post({"streams": names}) as source:
            await reader.read(source)
        assert {name: reader.offsets[name] for name in names} == {name: [1, 2, 3] for name in names}
    await eventually(lambda: served.gateway.statistics().connections == 0)


async def test_a_stream_with_much_to_catch_up_does_not_hold_up_a_live_one(
    start: Serve, queue: WatchedQueue
) -> None:
    """Fifty megabytes of an old log come beside the words of an answer, not before them."""
    chunks, text = 800, "x" * 62_000
    async with open_writer("big", queue=queue) as writer:
        for _ in range(chunks):
            await writer.send_chunk(text)
    served = await start()
    reader = Reader(served)
    async with (
        open_writer("live", queue=queue) as live,
        reader.post({"streams": ["big", "live"], "wait": 60}) as source,
        asyncio.timeout(60),
    ):
        events = reader.events(source)
        await reader.until(events, lambda: len(reader.order) >= 3)
        values = reader.values["live"]
        for i in range(5):
            before = len(reader.order)
            await live.send_chunk(i)
            await live.flush()
            while len(values) <= i:
                reader.take(await anext(events))
            assert len(reader.order) - before < 160  # ten megabytes are on their way in sockets
        assert "big" not in reader.ended
        await live.finish()
        await reader.rest(events)
    assert values == list(range(5))
    assert reader.offsets["big"] == list(range(1, chunks + 2))


async def test_a_stream_whose_backend_does_not_answer_holds_up_no_other(
    start: Serve, queue: WatchedQueue
) -> None:
    """One partition of the backend that hangs must not silence a whole page."""
    await write(queue, "a", 3)
    await write(queue, "stuck", 3)
    await write(queue, "lost", 3)
    block = Block()

    def stuck(method: str) -> Callable[[Call], Fault | None]:
        name = {"read": "stuck", "describe": "lost"}[method]
        return lambda call: block if call.stream and call.stream.name == name else None

    served = await start(max_queries=16)  # more than one of a client at once
    for method in ("read", "describe"):
        queue.always(method, stuck(method))
    reader = Reader(served)
    async with reader.get(address("lost", "stuck", "a")) as source:
        events = reader.events(source)
        await reader.until_ended(events, "a")
        assert "stuck" not in reader.ended
        block.release()
        await reader.until_ended(events, "lost", "stuck")
    assert {*map(tuple, reader.offsets.values())} == {(1, 2, 3, 4)}


async def test_a_failure_that_passes_is_reported_and_the_stream_goes_on_at_its_place(
    start: Serve, queue: WatchedQueue
) -> None:
    """The client does nothing: the gateway reads on as soon as the backend answers again."""
    served = await start(retry_seconds=0.02)
    reader = Reader(served)
    async with (
        open_writer("a", queue=queue) as a,
        open_writer("b", queue=queue) as b,
        reader.get(address("a", "b", wait="60")) as source,
    ):
        events = reader.events(source)
        for each in (a, b):
            await each.send_chunk(0)
            await each.flush()
        await reader.until(events, lambda: len(reader.order) == 2)
        queue.always(
            "read", lambda call: Fail() if call.stream and call.stream.name == "a" else None
        )
        queue.always("describe", lambda call: Fail() if call.stream == a.stream else None)
        await a.send_chunk(1)
        await a.flush()
        found = await reader.until(events, lambda: bool(reader.errors))
        assert reader.errors == [("a", "backend_unavailable", True)], found
        await b.send_chunk(1)
        await b.flush()
        await reader.until(events, lambda: reader.values["b"] == [0, 1])
        queue.heal()
        await a.send_chunk(2)
        await a.finish()
        await b.finish()
        await reader.until_ended(events, "a", "b")
    assert reader.offsets["a"] == [1, 2, 3, 4]
    assert len(reader.errors) == 1


async def test_a_failure_for_good_ends_one_stream_only(start: Serve, queue: WatchedQueue) -> None:
    """A damaged stream says so once, and the others of the page do not notice."""
    await write(queue, "a", 3)
    await write(queue, "bad", 3)
    damaged = CorruptRecordError("damaged", backend="memory", stream="default/bad")
    queue.always(
        "read", lambda call: Fail(damaged) if call.stream and call.stream.name == "bad" else None
    )
    served = await start()
    reader = Reader(served)
    async with reader.get(address("bad", "a")) as source:
        await reader.read(source)
    assert reader.errors == [("bad", "corrupt_record", False)]
    assert reader.offsets["a"] == [1, 2, 3, 4]
    async with reader.get(address("a")) as source:
        assert source.response.status_code == 204


async def test_a_deleted_stream_ends_for_its_readers_and_the_others_go_on(
    start: Serve, queue: WatchedQueue
) -> None:
    """Somebody clears one job of a console that others watch."""
    served = await start()
    reader = Reader(served)
    async with (
        open_writer("a", queue=queue) as a,
        open_writer("b", queue=queue) as b,
        reader.get(address("a", "b", wait="60")) as source,
    ):
        events = reader.events(source)
        for each in (a, b):
            await each.send_chunk(0)
            await each.flush()
        await reader.until(events, lambda: len(reader.order) == 2)
        served.gateway.end_readers(a.stream)
        await reader.until(events, lambda: bool(reader.errors))
        assert reader.errors == [("a", "stream_not_found", False)]
        await b.send_chunk(1)
        await b.finish()
        await reader.rest(events)
    assert reader.values["b"] == [0, 1]


async def test_silence_of_a_stream_is_reported_and_it_is_waited_for_again(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """A producer that is gone cannot be told from one that thinks; its stream alone is doubted."""
    brief = settings.model_copy(update={"idle_seconds": 0.2})
    async with AsyncExitStack() as stack:
        served = await Serve(stack, queue, brief)(retry_seconds=0.05)
        reader = Reader(served)
        async with (
            open_writer("a", queue=queue) as a,
            reader.get(address("a", wait="60")) as source,
        ):
            events = reader.events(source)
            await a.send_chunk(0)
            await a.flush()
            await reader.until(events, lambda: bool(reader.errors))
            assert reader.errors == [("a", "idle_timeout", True)]
            await a.send_chunk(1)
            await a.finish()
            await reader.until_ended(events, "a")
    assert reader.values["a"] == [0, 1]


async def test_streams_that_are_not_there_yet(start: Serve, queue: WatchedQueue) -> None:
    """A page opens its connection before the workflow has begun to write."""
    served = await start()
    reader = Reader(served)
    await write(queue, "there", 1)
    async with reader.get(address("there", "comes", "never", wait="3")) as source:
        events = reader.events(source)
        found = await reader.until(events, lambda: len(reader.places) == 3)
        states = {each["stream"]: each["state"] for each in found if each["event"] == "stream"}
        assert states == {"there": "OPEN", "comes": "ABSENT", "never": "ABSENT"}
        await write(queue, "comes", 2)
        found = await reader.until_ended(events, "comes")
        [announced] = [each for each in found if each["event"] == "stream"]
        assert (announced["state"], announced["is_new"]) == ("OPEN", True)
        await reader.rest(events)
    assert reader.errors == [("never", "stream_not_found", False)]
    async with reader.get(address("there", "comes", "never")) as source:
        assert source.response.status_code == 204


async def test_without_wait_an_absent_stream_is_reported_at_once(
    start: Serve, queue: WatchedQueue
) -> None:
    """A name with a slip of the pen says so; if nothing is there the answer is that of one."""
    served = await start()
    await write(queue, "a", 1)
    reader = Reader(served)
    async with reader.get(address("nope", "a")) as source:
        events = await reader.read(source)
    assert reader.errors == [("nope", "stream_not_found", False)]
    [state] = [each.json()["state"] for each in events if each.event == "stream"][:1]
    assert state in ("ABSENT", "OPEN")
    answer = await served.get(address("nope", "neither"))
    assert (answer.status_code, answer.json()["error"]) == (404, "stream_not_found")


@pytest.mark.parametrize("where", ["tail", "last"])
async def test_a_client_that_is_cut_off_before_the_first_event_does_not_begin_at_another_tail(
    start: Serve, queue: WatchedQueue, where: str
) -> None:
    """The first frame sets the places, so that what comes meanwhile is not missed."""
    served = await start(linger_seconds=0.01)
    reader = Reader(served)
    async with open_writer("a", queue=queue) as a, open_writer("b", queue=queue) as b:
        for each in (a, b):
            for i in range(3):
                await each.send_chunk(i)
            await each.flush()
        async with reader.get(address("a", "b", from_=where)) as source:
            async for event in source.aiter_sse():
                assert not event.data
                reader.last_id = event.id
                break
        for each in (a, b):
            await each.send_chunk(3)
            await each.finish()
        async with reader.get(address("a", "b", from_=where)) as source:
            await reader.read(source)
    expected = [3] if where == "tail" else [2, 3]
    assert (reader.values["a"], reader.values["b"]) == (expected, expected)


@pytest.mark.parametrize("method", ["get", "post"])
async def test_attempts_that_are_void_are_left_out_of_each_stream(
    start: Serve, queue: WatchedQueue, method: str
) -> None:
    """A page that is loaded late shows the answers, and not what was taken back."""
    for name in ("a", "b"):
        first = await open_writer(name, queue=queue)
        await first.send_chunk("void")
        await first.aclose()
        async with open_writer(name, queue=queue) as writer:
            await writer.send_chunk("good")
    served = await start()
    reader = Reader(served)
    path = address("a", "b") + "&attempts=last"
    body = {"streams": ["a", "b"], "attempts": "last"}
    async with reader.get(path) if method == "get" else reader.post(body) as source:
        await reader.read(source)
    assert reader.values == {"a": ["good"], "b": ["good"]}


async def test_a_place_of_an_earlier_stream_of_the_same_name_is_refused(
    start: Serve, queue: WatchedQueue
) -> None:
    """Going on in a stream that is another one would leave out its beginning in silence."""
    served = await start(linger_seconds=0.01)
    await write(queue, "b", 1)
    reader = Reader(served)
    async with open_writer("a", queue=queue) as a:
        await a.send_chunk("old")
        await a.flush()
        async with reader.get(address("a", "b")) as source:
            await reader.until(reader.events(source), lambda: len(reader.order) == 3)
    await queue.delete(a.stream)
    await write(queue, "a", 4)
    async with reader.get(address("a")) as source:
        assert source.response.status_code == 409
    reader.places["b"] = "0"
    async with reader.post({"streams": ["a", "b"]}) as source:
        await reader.read(source)
    assert reader.errors == [("a", "cursor", False)]


async def test_a_client_that_reads_slowly_gets_everything(
    start: Serve, queue: WatchedQueue
) -> None:
    """Each stream waits at its own place, and the gateway keeps little for it."""
    served = await start(ring_bytes=65_536, rings_bytes=262_144, pages_bytes=262_144)
    names = [f"s{i}" for i in range(8)]
    reader = Reader(served)
    async with reader.get(address(*names, wait="60")) as source, asyncio.timeout(60):
        events = reader.events(source)
        for name in names:
            await write(queue, name, 40, text="x" * 20_000)
        memory = served.gateway.statistics().memory_bytes
        assert memory < 1_000_000
        await reader.until_ended(events, *names)
    assert {*map(tuple, reader.offsets.values())} == {tuple(range(1, 42))}


@pytest.mark.parametrize("method", ["get", "post"])
async def test_every_response_says_why_it_ends(
    start: Serve, queue: WatchedQueue, method: str
) -> None:
    """A program goes on at the place that the last event names, or at those that it has."""
    served = await start(max_age_seconds=0.2, heartbeat_seconds=0.05)
    reader = Reader(served)
    async with open_writer("a", queue=queue) as a:
        await a.send_chunk(0)
        await a.flush()
        opening = reader.get(address("a")) if method == "get" else reader.post({"streams": ["a"]})
        async with opening as source:
            events = await reader.read(source)
        last = events[-1].json()
        assert (last["event"], last["reason"]) == ("reconnect", "max_age")
        assert last.get("after") == (reader.last_id if method == "get" else None)
        served = await start()
        reader = Reader(served)
        opening = reader.get(address("a")) if method == "get" else reader.post({"streams": ["a"]})
        async with opening as source:
            stream = reader.events(source)
            await reader.until(stream, lambda: reader.values["a"] == [0])
            served.gateway.stop_connections()
            assert reader.take(await anext(stream))["reason"] == "stopping"
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


async def test_a_quiet_connection_has_comments(start: Serve, queue: WatchedQueue) -> None:
    """Proxies give up on a connection that says nothing."""
    served = await start(heartbeat_seconds=0.02)
    comments = 0
    async with (
        open_writer("a", queue=queue),
        served.client.stream("GET", address("a", "b", wait="60")) as response,
    ):
        async for line in response.aiter_lines():
            comments += line == ":"
            if comments == 3:
                break


async def test_nothing_is_left_of_a_client_that_has_gone(start: Serve, queue: WatchedQueue) -> None:
    """Each stream of a connection is a task; they end with it, whatever they wait for."""
    served = await start(linger_seconds=0.01, prefix_seconds=0.05)
    async with open_writer("a", queue=queue) as writer:
        await writer.send_chunk("x" * 100_000)
        await writer.flush()
        for _ in range(3):
            reader = Reader(served)
            path = address("a", "b", prefixes=("p/",), wait="60")
            async with reader.get(path) as source:
                await anext(reader.events(source))
            body = {"streams": ["a", "b"], "prefixes": ["p/"], "wait": 60}
            async with Reader(served).post(body) as source:
                await anext(reader.events(source))
        gateway = served.gateway
        await eventually(lambda: gateway.statistics().streams == 0)
        await eventually(lambda: len(gateway.prefixes) == 0)

        def lines() -> list[str]:
            names = [task.get_name() for task in asyncio.all_tasks()]
            return [name for name in names if name.startswith(("streamq-line", "streamq-prefix"))]

        await eventually(lambda: lines() == [])
    assert gateway.statistics().waiting == 0
