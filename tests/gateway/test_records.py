"""Stored records, for readers that decode them by themselves."""

from __future__ import annotations

import asyncio
import base64
import random
import string
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse

from streamq import Settings, StreamWriter, load_settings, open_writer
from streamq.driver import QueueOptions, StreamId
from streamq.gateway import create_app, serve
from streamq.sqlite import SqliteDriver, SqliteSettings

from .served import Serve, Served, WatchedQueue, eventually

STREAM = StreamId("default", "s")


@asynccontextmanager
async def followed(
    served: Served, query: str = "", name: str = "s"
) -> AsyncIterator[AsyncIterator[ServerSentEvent]]:
    async with aconnect_sse(served.client, "GET", f"/records/{name}?{query}") as source:
        yield source.aiter_sse()


async def next_records(events: AsyncIterator[ServerSentEvent]) -> list[tuple[str, bytes]]:
    async for event in events:
        if event.event == "records":
            return [(position, base64.b64decode(data)) for position, data in event.json()]
    raise AssertionError("the response ended without records")


async def write(queue: WatchedQueue, *values: object, settings: Settings) -> StreamWriter:
    writer = await open_writer("s", queue=queue, settings=settings)
    for value in values:
        await writer.send_chunk(value)
        await writer.flush()
    return writer


async def stored(queue: WatchedQueue, after: str = "") -> list[tuple[str, bytes]]:
    found = await queue.read(STREAM, after, max_records=1_000, max_bytes=2**30, max_wait=0)
    return [(each.position, each.data) for each in found]


async def test_records_are_those_that_are_stored_and_go_on_live(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """The reader decodes them by itself: not a byte may differ."""
    writer = await write(queue, "a", b"\x00\xff", {"b": "\u20ac"}, settings=settings)
    served = await start()
    async with followed(served) as events:
        expected = await stored(queue)
        assert await next_records(events) == expected
        await writer.send_chunk("live")
        await writer.flush()
        assert await next_records(events) == await stored(queue, expected[-1][0])
    await writer.aclose()


async def test_client_goes_on_after_a_position(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """After a cut nothing is lost and nothing comes twice."""
    await (await write(queue, *range(9), settings=settings)).aclose()
    served = await start()
    every = await stored(queue)
    for position, _ in every[:-1]:
        async with followed(served, f"after={position}") as events:
            assert await next_records(events) == await stored(queue, position)
        page = (await served.get(f"/records/s?after={position}&follow=false")).json()
        assert [each[0] for each in page["records"]] == [
            each[0] for each in await stored(queue, position)
        ]


async def test_all_who_are_live_share_one_read(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """A thousand readers of a stream must cost the backend no more than one."""
    writer = await write(queue, "a", settings=settings)
    served = await start(client_share=1.0)
    async with asyncio.TaskGroup() as group:
        done, received = asyncio.Event(), list[int]()

        async def follow() -> None:
            async with followed(served) as events:
                await next_records(events)
                received.append(len(await next_records(events)))
                await done.wait()

        for _ in range(20):
            group.create_task(follow())
        reads = served.gateway.records.reads
        await eventually(lambda: [each.clients for each in reads._live.values()] == [20])
        before = queue.records_read
        await writer.send_chunk("b")
        await writer.flush()
        await eventually(lambda: received == [1] * 20)
        assert queue.records_read == before + 1
        done.set()
    await writer.aclose()
    await eventually(lambda: not reads._live and not reads._tasks)


async def test_positions_that_nothing_follows_do_not_each_wait_in_the_backend(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """A client can name any number of them, and a backend lets only hundreds of reads wait."""
    writer = await write(queue, "a", settings=settings)
    served = await start(client_share=1.0)
    reads = served.gateway.records.reads
    async with asyncio.TaskGroup() as group:

        async def follow(number: int) -> int:
            async with followed(served, f"after={2**62 + number}-0") as events:
                return len(await next_records(events))

        tasks = [group.create_task(follow(number)) for number in range(20)]
        await eventually(lambda: len(served.gateway._connections) == 20)
        assert len(reads._live) == 8
        # They get what comes all the same: a record of a newer epoch.
        await writer.aclose()
        async with open_writer("s", queue=queue, epoch=2**62 + 100):
            pass
    assert all(task.result() >= 1 for task in tasks)


async def test_stream_that_does_not_exist_is_waited_for_only_if_asked(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """A reader may come before its stream; a mistyped name must not wait for ever."""
    served = await start()
    assert (await served.get("/records/s")).status_code == 404
    assert (await served.get("/records/s?last=1")).status_code == 404
    async with followed(served, "wait=1") as events:
        found = [event.event async for event in events]
    assert found == ["open", "current", "error"]
    async with followed(served, "wait=60") as events:
        waiting = asyncio.ensure_future(next_records(events))
        await eventually(lambda: served.gateway.statistics().waiting == 1)
        await (await write(queue, "a", settings=settings)).aclose()
        assert len(await waiting) >= 1
        assert served.gateway.statistics().waiting == 0


async def test_deletion_ends_the_response_at_once(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """A reader that waits for the rest has to hear that there is none."""
    await (await write(queue, "a", settings=settings)).aclose()
    served = await start()
    async with followed(served) as events:
        await next_records(events)
        served.gateway.end_readers(STREAM)
        last = [event async for event in events][-1]
    assert (last.event, last.json()["error"]) == ("error", "stream_not_found")


async def test_goodbye_names_the_position_to_go_on_from(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """A client that reads by hand needs no bookkeeping of its own."""
    await (await write(queue, "a", settings=settings)).aclose()
    served = await start()
    async with followed(served) as events:
        position = (await next_records(events))[-1][0]
        await eventually(lambda: bool(served.gateway.records.reads._live))
        served.gateway.stop_connections()
        last = [event async for event in events][-1]
    assert last.json() == {"event": "reconnect", "reason": "stopping", "after": position}


async def test_page_is_bounded_by_what_is_asked_and_by_the_gateway(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """One answer must not take the memory of the process."""
    await (await write(queue, *(b"x" * 50_000 for _ in range(40)), settings=settings)).aclose()
    served = await start()

    async def sizes(query: str) -> list[int]:
        answer = (await served.get(f"/records/s?follow=false&{query}")).json()
        return [len(base64.b64decode(data)) for _, data in answer["records"]]

    assert len(await sizes("records=3&bytes=262144")) == 3
    assert len(await sizes("records=3&bytes=1")) == 1
    assert sum(await sizes("bytes=262144")) <= 262_144
    assert (await served.get("/records/s?follow=false&bytes=262145")).status_code == 400
    for option in ("records=1001", "records=0", "bytes=0"):
        assert (await served.get(f"/records/s?follow=false&{option}")).status_code == 400


async def test_newest_records_are_bounded_in_bytes(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """A client that asks for thousands of large records must not get gigabytes."""
    await (await write(queue, *(bytes(1_000_000) for _ in range(12)), settings=settings)).aclose()
    served = await start()
    answer = (await served.get("/records/s?last=4")).json()
    assert [each[0] for each in answer["last"]] == [
        each[0] for each in reversed((await stored(queue))[-4:])
    ]
    assert answer["records_stored"] == len(await stored(queue))
    refused = await served.get("/records/s?last=4096")
    assert (refused.status_code, refused.json()["error"]) == (413, "answer_too_large")


async def test_quota_delays_records(tmp_path: Path, queue: WatchedQueue) -> None:
    """What a tenant may read in a second holds for records as for events."""
    (tmp_path / "quotas.toml").write_text("[tenant]\nbytes_per_second = 100_000\n")
    slow = load_settings(backend="memory", quotas=tmp_path / "quotas.toml")
    fast = load_settings(backend="memory")
    await (await write(queue, *(bytes(50_000) for _ in range(5)), settings=fast)).aclose()
    expected = await stored(queue)
    clock = asyncio.get_running_loop().time
    took = []
    for settings in (fast, slow):
        async with serve(create_app(queue, settings)) as server:
            began, found = clock(), list[tuple[str, bytes]]()
            async with (
                httpx.AsyncClient(base_url=server.url) as client,
                aconnect_sse(client, "GET", "/records/s") as source,
            ):
                events = source.aiter_sse()
                while len(found) < len(expected):
                    found += await next_records(events)
            took.append(clock() - began)
            assert found == expected
    assert took[1] >= 1.0  # 333 kB, of which a second is permitted at once


@pytest.mark.parametrize("query", ["follow=false", "last=1"])
async def test_quota_holds_for_answers_with_records_too(
    query: str, tmp_path: Path, queue: WatchedQueue
) -> None:
    """A client that asks again and again must not get more than one that follows."""
    (tmp_path / "quotas.toml").write_text("[tenant]\nbytes_per_second = 20_000\n")
    slow = load_settings(backend="memory", quotas=tmp_path / "quotas.toml")
    writer = await write(queue, bytes(20_000), bytes(300_000), settings=slow)
    first, _ = (await stored(queue))[1]
    clock = asyncio.get_running_loop().time
    async with (
        serve(create_app(queue, slow)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=20) as client,
    ):
        began = clock()
        for _ in range(2):  # the first one takes what may be sent at once, and is still to be paid
            page = await client.get("/records/s?follow=false&records=2&bytes=30000")
            assert len(page.json()["records"]) == 2
        assert clock() - began >= 0.3
        path = f"/records/s?{query}" + (f"&after={first}" if "follow" in query else "")
        assert (await client.get(path)).status_code == 200  # 400 kB, which is a debt of 20 s
        refused = await client.get(path)
        assert (refused.status_code, refused.json()["error"]) == (429, "quota")
        assert refused.headers["Retry-After"]
        assert (await client.get("/records/s?last=0")).status_code == 200
    await writer.aclose()


def strange_positions() -> list[str]:
    """Return texts that are no positions, or that might be, the same in every run."""
    chance = random.Random(7)
    numbers = [0, 1, -1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**19 - 1, 10**40]
    pairs = [f"{one}-{other}" for one in numbers for other in numbers]
    texts = ["".join(chance.choices(string.printable, k=chance.randint(1, 30))) for _ in range(60)]
    digits = ["".join(chance.choices("0123456789-", k=chance.randint(1, 40))) for _ in range(60)]
    odd = [
        "\u0663-\u0663",
        "\x00",
        "\ud7ff",
        "1-1 ",
        " 1-1",
        "1_0-1",
        "+1-1",
        "1e3-1",
        "%",
        "1-1\n",
    ]
    return pairs + texts + digits + odd


async def test_any_text_as_a_position_is_refused_or_read(tmp_path: Path) -> None:
    """Positions come from strangers: none may look like a failure, or show another stream."""
    settings = load_settings(backend="sqlite")
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with await SqliteDriver.open(options, SqliteSettings(path=tmp_path / "s.db")) as queue:
        for name in ("s", "other"):
            async with open_writer(name, queue=queue, settings=settings) as writer:
                await writer.send_chunk(f"of {name}")
        async with (
            serve(create_app(queue, settings)) as server,
            httpx.AsyncClient(base_url=server.url) as client,
        ):
            statuses = Counter[int]()
            for position in strange_positions():
                params = {"after": position, "follow": "false"}
                answer = await client.get("/records/s", params=params)
                statuses[answer.status_code] += 1
                for _, data in answer.json().get("records", []):
                    assert b"of other" not in base64.b64decode(data)
    assert set(statuses) == {200, 409}
