"""The JavaScript client in Node: one stream, from its beginning to its end."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from streamq import Settings, StreamId, open_writer

from .cutting import cutting
from .scripts import answering, running_script, said
from .served import Serve, WatchedQueue, eventually, fill

FOLLOW = """
for await (const event of new Gateway(given.url).events(given.name, given.options)) say(event);
"""


async def test_every_event_arrives_once_whatever_cuts_the_connection(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """Proxies, networks and restarts cut connections anywhere; a reader must not notice."""
    served = await start(retry_seconds=0.002)
    values: list[Any] = [f"größe 🌊 {number}\n" * (number % 7) for number in range(120)]
    values[50:52] = [{"n": [1, {"ü": None}]}, 0.5]
    failing = await open_writer("a/b c?#%41", queue=queue, epoch=1)
    for value in values[:20]:
        await failing.send_chunk(value)
    await failing.aclose()
    async with cutting(served.server.port) as proxy:
        script = running_script(tmp_path, FOLLOW, url=proxy.url, name="a/b c?#%41")
        async with script as running, open_writer("a/b c?#%41", queue=queue, epoch=2) as writer:
            for value in values[:60]:
                await writer.send_chunk(value)
            await writer.flush()
            events = [await running.line() for _ in range(81)]  # live from here on
            for value in values[60:]:
                await writer.send_chunk(value)
            await writer.finish()
            events += await running.rest()
    assert [event["offset"] for event in events] == list(range(1, 143))
    kinds = Counter(event["event"] for event in events)
    assert kinds == {"chunk": 140, "reset": 1, "end": 1}
    assert [event["value"] for event in events[:20]] == values[:20]
    assert [event["value"] for event in events[21:-1]] == values
    assert proxy.cuts > 10


async def test_a_cut_at_any_byte_loses_and_repeats_nothing(tmp_path: Path) -> None:
    """Also within a character, a line, and between the lines of a frame, where a place stands."""
    frames = [
        f"id: {offset}@9\nevent: chunk\ndata: "
        + json.dumps({"event": "chunk", "offset": offset, "value": value}, ensure_ascii=False)
        + "\n\n"
        for offset, value in enumerate(["ü🌊", "id: 7", "x"], 1)
    ]
    frames.append('id: 4@9\nevent: end\ndata: {"event":"end","offset":4,"state":"END"}\n\n')
    opening = 'retry: 1\nevent: token\ndata: {"expires_in_seconds":600}\n\n:\n'
    length = len((opening + "".join(frames)).encode())

    def answer(request: str) -> tuple[bytes, bool]:
        address = urlsplit(request.split(" ")[1])
        after = parse_qs(address.query).get("after", ["0"])[0]
        body = (opening + "".join(frames[int(after.partition("@")[0]) :])).encode()
        cut = int(address.path.rpartition("/")[2])
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        if after == "0" and cut not in tried:
            tried.add(cut)
            body = body[:cut]
        return head + body, True

    tried: set[int] = set()
    script = """
    const gateway = new Gateway(given.url), all = {};
    const read = async (_, cut) => {
      const values = [];
      for await (const { id, value } of gateway.events(String(cut))) values.push(id, value);
      all[JSON.stringify(values)] = (all[JSON.stringify(values)] ?? 0) + 1;
    };
    await Promise.all(Array.from({ length: given.length + 1 }, read));
    say(all);
    """
    async with answering(answer) as url:
        [found] = await said(tmp_path, script, url=url, length=length)
    wanted = '["1@9","ü🌊","2@9","id: 7","3@9","x","4@9",null]'
    assert found == {wanted: length + 1}
    assert len(tried) == length + 1


async def test_orderly_ends_of_a_connection_are_not_noticed(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """Connections end by age; the program has no case for it."""
    served = await start(max_age_seconds=0.1, retry_seconds=0.01)
    running = running_script(tmp_path, FOLLOW, url=served.server.url, name="s", options={"wait": 9})
    async with running as script, open_writer("s", queue=queue) as writer:
        for number in range(5):
            await writer.send_chunk(number)
            await writer.flush()
            assert (await script.line())["value"] == number
            await eventually(lambda: served.gateway.statistics().connections == 0)
        await writer.finish()
        assert [event["event"] for event in await script.rest()] == ["end"]


async def test_a_gateway_that_restarts_is_waited_for(
    start: Serve, queue: WatchedQueue, settings: Settings, tmp_path: Path
) -> None:
    """Deployments stop gateways under their readers."""
    script = """
    const onConnection = ({ state, problem }) => say(state, problem?.code ?? null);
    const gateway = new Gateway(given.url);
    for await (const event of gateway.events("s", { onConnection })) say(event.event);
    """
    async with AsyncExitStack() as stack, open_writer("s", queue=queue) as writer:
        own = await stack.enter_async_context(AsyncExitStack())
        first = await Serve(own, queue, settings)(retry_seconds=0.01)
        proxy = await stack.enter_async_context(cutting(first.server.port, most=2**30))
        proxy.refuses = False
        async with running_script(tmp_path, script, url=proxy.url) as running:
            await writer.send_chunk("before")
            await writer.flush()
            assert [await running.line() for _ in range(2)] == [["open", None], "chunk"]
            await own.aclose()
            assert await running.line() == ["reconnecting", "stopping"]
            proxy.port = (await start(retry_seconds=0.01)).server.port
            await writer.finish()
            states = await running.rest()
    assert [each for each in states if isinstance(each, str)] == ["end"]


ERRORS = {
    "there is none": ("nope", {}, ("stream_not_found", 404, False)),
    "none within the time": ("nope", {"wait": 1}, ("stream_not_found", 0, False)),
    "a place of another life of it": ("s", {"after": "1@77"}, ("cursor", 409, False)),
    "a place that is none": ("s", {"after": "x"}, ("bad_request", 400, False)),
    "two places": ("s", {"after": "1@1", "from": "tail"}, ("bad_request", 0, False)),
    "a name without an address": ("..", {}, ("bad_request", 0, False)),
    "half of a character": ("\ud800", {}, ("bad_request", 0, False)),
}


async def test_what_does_not_pass_is_thrown(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A program compares codes, and shows the message."""
    await fill(queue, "s")
    served = await start()
    script = """
    for (const [name, options] of given.asked) {
      try {
        for await (const event of new Gateway(given.url).events(name, options)) say(event);
      } catch (error) {
        say(error instanceof GatewayError && failed(error));
      }
    }
    """
    asked = [[name, options] for name, options, _ in ERRORS.values()]
    found = await said(tmp_path, script, url=served.server.url, asked=asked)
    codes = [(error["code"], error["status"], error["retryable"]) for error in found]
    assert dict(zip(ERRORS, codes, strict=True)) == {
        kind: wanted for kind, (_, _, wanted) in ERRORS.items()
    }
    assert all(len(error["message"]) > 10 for error in found)


async def test_a_stream_that_began_again_is_not_mixed_with_the_former_one(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """Offsets of both are alike: the text of one would go on with the other's."""
    served = await start(retry_seconds=0.01)
    script = """
    try {
      for await (const event of new Gateway(given.url).events("s")) say(event.value);
    } catch (error) {
      say(failed(error));
    }
    """
    async with running_script(tmp_path, script, url=served.server.url) as running:
        writer = await open_writer("s", queue=queue, epoch=5)
        await writer.send_chunk("old")
        await writer.aclose()
        assert await running.line() == "old"
        await queue.delete(StreamId("default", "s"))
        async with open_writer("s", queue=queue, epoch=6) as again:
            await again.send_chunk("new")
        served.gateway.stop_connections()
        assert (await running.line())["code"] == "cursor"


async def test_a_reader_that_has_the_end_gets_no_event(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A program that stored its place, and comes back later."""
    await fill(queue, "s")
    served = await start()
    script = """
    const gateway = new Gateway(given.url);
    let place;
    for await (const event of gateway.events("s")) place = event.id;
    for await (const event of gateway.events("s", { after: place })) say(event);
    for await (const event of gateway.events("s", { from: "tail" })) say(event.event);
    for await (const { value, event } of gateway.events("s", { from: "last" })) say(value ?? event);
    """
    assert await said(tmp_path, script, url=served.server.url) == ["end", "2 ", "end"]


async def test_a_stream_is_waited_for(start: Serve, queue: WatchedQueue, tmp_path: Path) -> None:
    """The browser is often there before the worker."""
    served = await start()
    options = {"wait": 600}
    script = running_script(tmp_path, FOLLOW, url=served.server.url, name="s", options=options)
    async with script as running:
        await eventually(lambda: served.gateway.statistics().waiting == 1)
        await fill(queue, "s", 1)
        assert [event["event"] for event in await running.rest()] == ["chunk", "end"]


async def test_break_and_abort_close_the_connection(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A component that goes, goes on costing nothing."""
    served = await start()
    script = """
    const gateway = new Gateway(given.url);
    for await (const event of gateway.events("s")) {
      say(event.value);
      await hear();
      break;
    }
    say("broken");
    await hear();
    const reason = new Error("enough"), control = new AbortController();
    const { signal } = control;
    try {
      for await (const event of gateway.events("s", { signal })) {
        say(event.value);
        hear().then(() => control.abort(reason)); // while the next event is awaited
      }
    } catch (error) {
      say(error === reason);
    }
    await hear();
    try {
      for await (const event of gateway.events("s", { signal })) say(event);
    } catch (error) {
      say(error === reason);
    }
    """

    def connections() -> int:
        return served.gateway.statistics().connections

    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("one")
        await writer.flush()
        async with running_script(tmp_path, script, url=served.server.url) as running:
            assert await running.line() == "one"
            assert connections() == 1
            running.tell(1)
            assert await running.line() == "broken"
            await eventually(lambda: connections() == 0)
            running.tell(1)
            assert await running.line() == "one"
            assert connections() == 1
            running.tell(1)
            assert await running.line() is True
            await eventually(lambda: connections() == 0)
            running.tell(1)
            assert await running.rest() == [True]


async def test_a_slow_program_is_not_read_ahead_for(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """What waits for it stays in the gateway's log and not in the memory of a browser."""
    served = await start(send_timeout_seconds=0.3, retry_seconds=0.01)
    async with open_writer("s", queue=queue) as writer:
        for number in range(400):
            await writer.send_chunk(f"{number:>60000}")
    script = """
    let count = 0, right = true;
    for await (const { event, value } of new Gateway(given.url).events("s")) {
      if (event === "end") break;
      right &&= Number(value) === count++;
      if (count === 1) say(await hear());
    }
    say(count, right);
    """
    async with running_script(tmp_path, script, url=served.server.url) as running:
        await eventually(lambda: served.gateway.statistics().connections == 1)
        await eventually(lambda: served.gateway.statistics().connections == 0)  # it accepts no more
        running.tell("go on")
        assert await running.rest() == ["go on", [400, True]]


async def test_a_connection_that_says_nothing_is_dead(tmp_path: Path) -> None:
    """A network that fails sends nothing, and a gateway sends a comment every 15 seconds."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nretry: 1\n"
    event = b'id: %d@9\nevent: chunk\ndata: {"event":"chunk","offset":%d}\n\n'
    end = b'id: 3@9\nevent: end\ndata: {"event":"end","offset":3}\n\n'
    bodies = [event % (1, 1), event % (2, 2) + b"data: {", end]

    def answer(_request: str) -> tuple[bytes, bool]:
        return head + bodies.pop(0), False

    async with answering(answer) as url:
        script = """
        const onConnection = ({ problem }) => problem && say(problem.code);
        for await (const { offset } of new Gateway(given.url, { silenceSeconds: 0.5 })
          .events("s", { onConnection })) say(offset);
        """
        lost = "connection_lost"
        assert await said(tmp_path, script, url=url) == [1, lost, 2, lost, 3]


async def test_patience_has_an_end_if_one_is_given(tmp_path: Path) -> None:
    """A script of a night job would otherwise wait for a gateway that is gone."""
    script = """
    const gateway = new Gateway("http://127.0.0.1:1");
    try {
      for await (const event of gateway.events("s", { patienceSeconds: 0 })) say(event);
    } catch (error) {
      say(failed(error));
    }
    """
    [error] = await said(tmp_path, script)
    assert (error["code"], error["retryable"]) == ("unreachable", True)


async def test_an_address_that_is_no_gateway_is_reported(tmp_path: Path) -> None:
    """A development server answers every path with its page, and a reader would wait for ever."""

    def answer(_request: str) -> tuple[bytes, bool]:
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", True

    script = """
    const fails = async (call) => { try { await call(); } catch (error) { say(failed(error)); } };
    await fails(async () => { for await (const _ of new Gateway(given.url).events("s")); });
    await fails(() => new Gateway(given.url).status("s"));
    for (const url of ["", "ftp://a/", "http://a:b@c/", undefined]) {
      await fails(() => new Gateway(url));
    }
    await fails(() => new Gateway(given.url, { token: 1 }));
    """
    async with answering(answer) as url:
        found = await said(tmp_path, script, url=url)
    assert [error["code"] for error in found] == ["bad_response"] * 2 + ["bad_request"] * 5
    assert "text/html" in found[0]["message"]
