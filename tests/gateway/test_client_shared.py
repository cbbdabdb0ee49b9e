"""The JavaScript client in Node: several readers that share one connection."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from streamq import StreamId, open_writer
from streamq.writing._writer import StreamWriter

from .scripts import running_script
from .served import Serve, WatchedQueue, eventually, fill


async def test_many_readers_share_one_connection(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A page with twelve parts has six connections; the stop button needs one of them."""
    served = await start()
    names = [f"part-{number}" for number in range(12)]
    writers = [await open_writer(name, queue=queue) for name in names]
    script = """
    const gateway = new Gateway(given.url, { share: true });
    const follow = async (name) => {
      let text = "";
      for await (const { event, value } of gateway.events(name, { wait: 60 })) {
        text += value ?? event;
        if (event === "chunk") say(name);
      }
      return text;
    };
    const parts = given.names.map(follow);
    await hear();
    parts.push(follow("part-0"), follow("late"));
    say(await Promise.all(parts));
    """

    async def send(text: str, some: list[StreamWriter[Any]]) -> None:
        for writer in some:
            await writer.send_chunk(text)
            await writer.flush()

    async with running_script(tmp_path, script, url=served.server.url, names=names) as running:
        await send("one ", writers)
        assert sorted([await running.line() for _ in names]) == sorted(names)
        assert served.gateway.statistics().connections == 1
        running.tell("two more readers")
        assert await running.line() == "part-0"  # has it from the beginning
        await send("two ", writers)
        await fill(queue, "late", 1)
        assert sorted([await running.line() for _ in range(14)]) == sorted(
            [*names, "part-0", "late"]
        )
        assert served.gateway.statistics().connections == 1
        for writer in writers:
            await writer.finish()
        assert await running.rest() == [["one two end"] * 13 + ["0 end"]]
    await eventually(lambda: served.gateway.statistics().connections == 0)


async def test_readers_of_the_tail_share_a_connection_and_miss_nothing_after_it(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A dashboard begins now; a cut must not make it begin at a later now."""
    served = await start(max_age_seconds=0.3, retry_seconds=0.01)
    writers = [await open_writer(name, queue=queue) for name in "ab"]
    for writer in writers:
        await writer.send_chunk("past")
        await writer.flush()
    script = """
    const gateway = new Gateway(given.url, { share: true });
    let opened = 0;
    const onConnection = ({ state }) => { if (state === "open" && ++opened === 2) say("open"); };
    const follow = async (name) => {
      const seen = [];
      for await (const { value, event } of gateway.events(name, { from: "tail", onConnection })) {
        seen.push(value ?? event);
      }
      return seen;
    };
    say(await Promise.all([follow("a"), follow("b")]));
    """
    async with running_script(tmp_path, script, url=served.server.url) as running:
        assert await running.line() == "open"
        await eventually(lambda: served.gateway.statistics().connections == 1)
        for text in ("one", "two", "three"):
            await eventually(lambda: served.gateway.statistics().connections == 0)
            for writer in writers:
                await writer.send_chunk(text)
                await writer.flush()
            await eventually(lambda: served.gateway.statistics().connections == 1)
        for writer in writers:
            await writer.finish()
        assert await running.rest() == [[["one", "two", "three", "end"]] * 2]


async def test_errors_of_a_shared_connection_reach_the_right_reader(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """Each part of a page says what is wrong with its own stream."""
    await fill(queue, "ended", 1)
    again = await open_writer("again", queue=queue)
    served = await start()
    script = """
    const gateway = new Gateway(given.url, { share: true });
    const follow = async (name, options) => {
      try {
        for await (const { event } of gateway.events(name, options)) {
          if (event === "end") return event;
        }
      } catch (error) {
        return [error.code, error.stream ?? null];
      }
    };
    const all = [
      ["ended"], ["nope"], ["late", { wait: 1 }], ["again", { after: "1@77" }],
    ].map((of) => follow(...of));
    say(await Promise.all(all));
    say(await Promise.all([follow("nope"), follow("again", { after: "1@77" })]));
    """
    async with again, running_script(tmp_path, script, url=served.server.url) as running:
        await again.send_chunk("x")
        await again.flush()
        missing = ["stream_not_found", "nope"], ["stream_not_found", "late"]
        assert await running.line() == ["end", *map(list, missing), ["cursor", "again"]]
        [codes] = await running.rest()
        assert [code for code, _ in codes] == ["stream_not_found", "cursor"]


async def test_a_slow_reader_of_a_shared_connection_delays_no_other(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """What it does not take in time it gets later, from the gateway's log."""
    served = await start()
    await fill(queue, "slow", 5_000)
    await fill(queue, "quick", 2_000)
    script = """
    const gateway = new Gateway(given.url, { share: true });
    const counted = async (name, pause) => {
      let count = 0, right = true;
      for await (const { event, value } of gateway.events(name)) {
        if (event === "end") return [count, right];
        right &&= Number(value) === count++;
        if (count % 1500 === 1) await pause?.();
      }
    };
    const slow = counted("slow", hear);
    say(await counted("quick"));
    say(await slow);
    """
    async with running_script(tmp_path, script, url=served.server.url) as running:
        assert await running.line() == [2_000, True]
        for _ in range(4):
            running.tell("go on")
        assert await running.rest() == [[5_000, True]]


async def test_a_shared_connection_waits_for_streams_however_old_it_is(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A page that was open for an hour asked ten times a second for a stream that had to begin."""
    served = await start()
    first = await open_writer("first", queue=queue)
    await first.send_chunk("x")
    await first.flush()
    script = """
    const now = performance.now.bind(performance);
    let later = 0, connections = 0;
    performance.now = () => now() + later;
    const gateway = new Gateway(given.url, { share: true });
    const onConnection = ({ state }) => { if (state === "open") connections++; };
    const read = async (name) => {
      for await (const { event, value } of gateway.events(name, { wait: 60, onConnection })) {
        if (event === "chunk") say(name, value);
      }
    };
    const reading = read("first");
    await hear();
    later = 3_600_000;
    const waiting = read("late");
    await hear();
    await waiting;
    await reading;
    say(connections);
    """
    async with running_script(tmp_path, script, url=served.server.url) as running:
        assert await running.line() == ["first", "x"]
        running.tell(1)
        await asyncio.sleep(1)  # in which it asked ten times
        await fill(queue, "late", 1)
        running.tell(1)
        assert await running.line() == ["late", "0 "]
        await first.finish()
        await first.aclose()
        assert (await running.rest())[-1] <= 4


async def test_what_waits_for_a_slow_reader_has_a_bound_in_characters(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A thousand chunks of a megabyte would fill a tab before the first of them is shown."""
    served = await start()
    async with open_writer("large", queue=queue) as writer:
        for number in range(12):
            await writer.send_chunk(f"{number} ".ljust(1_000_000, "x"))
    script = """
    const gateway = new Gateway(given.url, { share: true });
    let connections = 0;
    const onConnection = ({ state }) => { if (state === "open") connections++; };
    const slow = (async () => {
      const numbers = [];
      for await (const { event, value } of gateway.events("large", { onConnection })) {
        if (event === "end") return numbers;
        numbers.push(parseInt(value));
        if (numbers.length === 1) await hear();
      }
    })();
    for await (const { event } of gateway.events("large")) ; // all has been offered to both
    const before = connections;
    say("whole");
    say(await slow, connections > before);
    """
    async with running_script(tmp_path, script, url=served.server.url) as running:
        assert await running.line() == "whole"
        running.tell("go on")
        assert await running.rest() == [[list(range(12)), True]]


async def test_a_reader_that_comes_back_late_does_not_mix_two_streams(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """Another reader begins at the beginning, so the gateway cannot notice the stale place."""
    served = await start()
    first = await open_writer("s", queue=queue, epoch=5)
    await first.send_chunk("old 1")
    await first.send_chunk("old 2")
    await first.aclose()
    script = """
    const gateway = new Gateway(given.url, { share: true });
    const places = [];
    for await (const { id } of gateway.events("s")) if (places.push(id) === 2) break;
    say(places);
    await hear();
    const follow = async (options) => {
      const seen = [];
      try {
        for await (const { event, value } of gateway.events("s", options)) {
          seen.push(value ?? event);
        }
      } catch (error) {
        seen.push(error.code);
      }
      return seen;
    };
    say(await Promise.all([follow({ after: places[1] }), follow()]));
    const ids = [];
    for await (const { id } of gateway.events("s")) ids.push(id);
    say(await Promise.all([follow({ after: ids.at(-1) }), follow({ after: ids.at(-2) })]));
    say(await follow({ after: ids.at(-1) }));
    """
    async with running_script(tmp_path, script, url=served.server.url) as running:
        assert await running.line() == ["1@5", "2@5"]
        await queue.delete(StreamId("default", "s"))
        async with open_writer("s", queue=queue, epoch=6) as again:
            for text in ("new 1", "new 2", "new 3"):
                await again.send_chunk(text)
        running.tell("again")
        assert await running.rest() == [
            [["cursor"], ["new 1", "new 2", "new 3", "end"]],
            [[], ["end"]],
            [],
        ]
