"""The JavaScript client in Node: many streams on one connection, for one reader."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from pathlib import Path

from streamq import open_writer

from .cutting import cutting
from .scripts import answering, running_script, said
from .served import Serve, WatchedQueue, eventually, fill

COLLECT = """
const all = {};
const take = ({ stream, event, offset, value }) => {
  if (event === "stream" || event === "error") return;
  (all[stream] ??= []).push(value ?? `${event} ${offset}`);
};
"""


async def test_each_of_many_streams_resumes_at_its_own_place(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """One connection is cut, and each of its streams must go on without loss and repetition."""
    served = await start(retry_seconds=0.002)
    names = [f"chat {number}/ü" for number in range(12)]
    writers = [await open_writer(name, queue=queue) for name in names]
    script = (
        COLLECT
        + """
    for await (const event of new Gateway(given.url).events(given.names, { wait: 60 })) take(event);
    say(all);
    """
    )
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(cutting(served.server.port, most=6_000))
        running = await stack.enter_async_context(
            running_script(tmp_path, script, url=proxy.url, names=names)
        )
        for number in range(40):
            for index, writer in enumerate(writers):
                if number < 3 * (index + 1):
                    await writer.send_chunk(f"{index}.{number}")
                    await writer.flush()
        for writer in writers:
            await writer.finish()
        [found] = await running.rest()
    assert found == {
        name: [*(f"{index}.{number}" for number in range(count)), f"end {count + 1}"]
        for index, name in enumerate(names)
        for count in [3 * (index + 1)]
    }
    assert proxy.cuts > 10


async def test_streams_come_and_go_while_the_others_are_read(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A page opens and closes its parts."""
    served = await start()
    writers = {name: await open_writer(name, queue=queue) for name in "abc"}
    script = """
    const events = new Gateway(given.url).events(["a", "b"], { wait: 60 });
    for await (const { event, stream, value } of events) {
      if (event === "chunk") say(stream, value);
      if (value === "add") events.add("c");
      if (value === "remove") events.remove("a");
      if (value === "leave") break;
    }
    say(events.places);
    """

    async def send(name: str, text: str) -> None:
        await writers[name].send_chunk(text)
        await writers[name].flush()

    async with running_script(tmp_path, script, url=served.server.url) as running:
        await send("c", "early")
        for name, text in (("a", "1"), ("b", "add")):
            await send(name, text)
            assert await running.line() == [name, text]
        assert await running.line() == ["c", "early"]
        await send("a", "remove")
        assert await running.line() == ["a", "remove"]
        await send("a", "unseen")
        for name, text in (("b", "2"), ("c", "leave")):
            await send(name, text)
            assert await running.line() == [name, text]
        [places] = await running.rest()
    assert {name: place.partition("@")[0] for name, place in places.items()} == {"b": "2", "c": "2"}
    await eventually(lambda: served.gateway.statistics().connections == 0)


async def test_streams_of_a_prefix_are_found_and_resumed(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A page of a workflow shows topics that it did not know when it was opened."""
    await fill(queue, "chat-7/old", 1)
    await fill(queue, "chat-70", 1)
    served = await start(max_age_seconds=0.5, retry_seconds=0.01)
    script = """
    const control = new AbortController(), { signal } = control;
    const options = { prefixes: ["chat-7/"], signal, wait: 60 };
    const events = new Gateway(given.url).events(["a"], options);
    hear().then(() => control.abort());
    try {
      for await (const { event, stream, state, value } of events) {
        if (event === "stream") say(stream, state);
        else say(stream, value ?? event);
      }
    } catch ({ name }) {
      say(name);
    }
    """
    async with AsyncExitStack() as stack:
        live = await stack.enter_async_context(open_writer("chat-7/live", queue=queue))
        await live.send_chunk("one")
        await live.flush()
        running = await stack.enter_async_context(
            running_script(tmp_path, script, url=served.server.url)
        )
        first = [await running.line() for _ in range(6)]
        assert sorted(map(tuple, first)) == [
            ("a", "ABSENT"),
            ("chat-7/live", "OPEN"),
            ("chat-7/live", "one"),
            ("chat-7/old", "0 "),
            ("chat-7/old", "OPEN"),
            ("chat-7/old", "end"),
        ]
        await eventually(lambda: served.gateway.statistics().connections == 0)
        await live.send_chunk("two")
        while (line := await running.line())[1] in ("OPEN", "ABSENT"):
            pass  # each connection says what it reads
        assert line == ["chat-7/live", "two"]
        await fill(queue, "chat-7/new", 1)
        await fill(queue, "a", 1)
        more: list[list[str]] = []
        while len(more) < 4:
            line = await running.line()
            more += [line] if line[1] in ("0 ", "end") else []
        assert sorted(map(tuple, more)) == [
            ("a", "0 "),
            ("a", "end"),
            ("chat-7/new", "0 "),
            ("chat-7/new", "end"),
        ]
        running.tell("enough")
        assert (await running.rest())[-1] == "AbortError"


async def test_a_stream_of_a_prefix_that_is_removed_stays_so_until_it_is_added(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """The prefix would find it again with each connection, and play it from its beginning."""
    served = await start()
    writers = {name: await open_writer(name, queue=queue) for name in ("p/a", "p/b", "c")}
    script = """
    const events = new Gateway(given.url).events([], { prefixes: ["p/"] });
    let isRemoved = false;
    for await (const { event, stream, value } of events) {
      if (event === "chunk") say(stream, value);
      if (value === "remove" && !isRemoved) {
        isRemoved = true;
        events.remove("p/a"); events.add("c");
      }
      if (value === "add") events.add("p/a");
      if (value === "leave") break;
    }
    """

    async def send(name: str, text: str) -> None:
        await writers[name].send_chunk(text)
        await writers[name].flush()

    await send("p/a", "1")
    await send("p/b", "2")
    async with running_script(tmp_path, script, url=served.server.url) as running:
        assert sorted([await running.line(), await running.line()]) == [["p/a", "1"], ["p/b", "2"]]
        await send("p/a", "remove")
        assert await running.line() == ["p/a", "remove"]
        await send("c", "3")  # which comes by a new connection
        assert await running.line() == ["c", "3"]
        await send("p/a", "4")
        await send("p/b", "add")
        assert await running.line() == ["p/b", "add"]
        for text in ("1", "remove", "4"):
            assert await running.line() == ["p/a", text]
        await send("p/b", "leave")
        assert await running.rest() == [["p/b", "leave"]]
    for writer in writers.values():
        await writer.aclose()


async def test_a_stream_that_begins_again_under_its_name_comes_whole(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A place of the deleted stream must not hide the beginning of the new one."""
    served = await start(retry_seconds=0.01)
    script = """
    const options = { prefixes: ["p/"], after: { "p/s": "3@77" } };
    const events = new Gateway(given.url).events([], options);
    for await (const { event, state, value, offset } of events) {
      say(event === "stream" ? state : value ?? event, offset ?? null);
      if (event === "end" || event === "error") break;
    }
    """
    async with running_script(tmp_path, script, url=served.server.url) as running:
        await eventually(lambda: served.gateway.statistics().connections == 1)
        await fill(queue, "p/s", 1)
        assert await running.rest() == [["OPEN", None], ["0 ", 1], ["end", 2]]


async def test_changes_that_follow_each_other_leave_a_connection_its_time(tmp_path: Path) -> None:
    """A page that adds a stream every moment would otherwise read nothing."""
    requests: list[float] = []
    loop = asyncio.get_running_loop()

    def answer(_request: str) -> tuple[bytes, bool]:
        requests.append(loop.time())
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n:\n", False

    script = """
    const events = new Gateway(given.url).events(["first"]);
    const ended = events.next();
    for (let i = 0; i < 100; i++) {
      events.add(`stream-${i}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    say(events.connections);
    await events.return();
    say((await ended).done);
    """
    async with answering(answer) as url:
        [connections, is_done] = await said(tmp_path, script, url=url)
    assert connections > 1
    assert min(b - a for a, b in itertools.pairwise(requests[1:])) > 0.2
    assert is_done is True


async def test_an_error_of_one_stream_leaves_the_others(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """One name that is not there must not blank the page."""
    await fill(queue, "a", 1)
    served = await start()
    script = """
    for await (const { event, stream, error, state } of
      new Gateway(given.url).events(["a", "nope"], { wait: given.wait })) {
      say(stream, event, error ?? state ?? null);
    }
    """
    for wait in (None, 1):
        found = await said(tmp_path, script, url=served.server.url, wait=wait)
        assert ["nope", "error", "stream_not_found"] in found
        assert [each for each in found if each[0] == "a"] == [
            ["a", "stream", "OPEN"],
            ["a", "chunk", None],
            ["a", "end", "END"],
        ]


async def test_a_prefix_that_is_no_list_is_refused(tmp_path: Path) -> None:
    """Its letters would be prefixes, and find streams that nobody asked for."""
    script = """
    try {
      new Gateway(given.url).events([], { prefixes: "chat-7/" });
    } catch (error) {
      say(error.code, error.message);
    }
    """
    async with running_script(tmp_path, script, url="http://127.0.0.1:1") as running:
        assert await running.line() == ["bad_request", 'prefixes is "chat-7/"; give a list']
