"""Many streams on one connection: order, places, endings, and what one stream does to others."""

from __future__ import annotations

import asyncio
import random

import pytest

from streamq import open_writer
from streamq.driver import ChunkQueue

from .many import Reader, address
from .served import Serve, WatchedQueue


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
            events = source.aiter_sse()
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
