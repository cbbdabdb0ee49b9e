"""The JavaScript client in Node: values as JavaScript can hold them, stories, views, requests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from temporalio.api.common.v1 import Payload

from streamq import Encoding, open_writer

from .scripts import STATIC, answering, running_script, said
from .served import AsStored, Serve, WatchedQueue, eventually

NUMBERS = {
    "9007199254740991": 9007199254740991,
    "9007199254740993": "9007199254740993n",
    '{"9007199254740993":[-12345678901234567890,1.5]}': {
        "9007199254740993": ["-12345678901234567890n", 1.5]
    },
    '"\\u0000 9007199254740993"': "\0 9007199254740993",
    '["\\u0000\\u0000x", 9007199254740993, "a \\" 9007199254740993"]': [
        "\0\0x",
        "9007199254740993n",
        'a " 9007199254740993',
    ],
    '{"\\u0000k" : "\\u0000v", "n": 9007199254740993}': {"\0k": "\0v", "n": "9007199254740993n"},
    '[1e400, 12345678901234567890.5, "\\\\", 9007199254740993]': [
        "Infinity",
        12345678901234567000,
        "\\",
        "9007199254740993n",
    ],
}


async def test_long_integers_are_not_rounded(tmp_path: Path) -> None:
    """Ids of other systems have nineteen digits; rounded, they name something else."""
    script = """
    say(given.texts.map((text) => parse(text)));
    const [text] = given.texts.slice(1);
    say([parse(text, "string"), parse(text, "number"), parse(text, (digits) => digits.length)]);
    const long = JSON.stringify("\\\\".repeat(6e6) + "9".repeat(1e7));
    say(parse(`[${long}, ${"9".repeat(20)}]`)[1]);
    """
    found = await said(tmp_path, script, texts=list(NUMBERS))
    assert dict(zip(NUMBERS, found[0], strict=True)) == NUMBERS
    assert found[1] == ["9007199254740993", 9007199254740992, 16]
    assert found[2] == f"{'9' * 20}n"


def payload(encoding: bytes, data: bytes) -> bytes:
    metadata = {"encoding": encoding, "messageType": b"acme.Order"}
    return Payload(metadata=metadata, data=data).SerializeToString()


async def test_every_form_of_a_value_arrives(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """Bytes as bytes, numbers that JSON lacks as numbers, and what nobody decodes as it is."""
    served = await start()
    lossy = b'{"a~b":{"c/d":[NaN,-Infinity]},"__proto__":{"x":Infinity}}'
    stored = [
        (Encoding.TEXT, "ü🌊\u2028".encode()),
        (Encoding.BYTES, b"\xff\x00" + "ü".encode()[:1]),
        (Encoding.BYTES, "ü".encode()[1:]),
        (Encoding.PAYLOAD, payload(b"json/plain", lossy)),
        (Encoding.PAYLOAD, payload(b"json/plain", b"NaN")),
        (Encoding.PAYLOAD, payload(b"binary/protobuf", b"\x0a\x01x")),
    ]
    async with open_writer("s", queue=queue, serializer=AsStored()) as writer:
        for encoding, data in stored:
            await writer.send_chunk((encoding, data))
    script = """
    const { text, values, chunks, state, seal, after } = await new Gateway(given.url).story("s");
    const fields = ({ value, bytes, undecoded }) => ({ value, bytes, undecoded });
    const live = [];
    for await (const event of new Gateway(given.url).events("s")) live.push(fields(event));
    live.pop();
    say(JSON.stringify(live, plain) === JSON.stringify(chunks.map(fields), plain));
    let view;
    for await (view of new Gateway(given.url).views("s")) say(view.state);
    say(view.text === text, JSON.stringify(view.values, plain) === JSON.stringify(values, plain));
    say({ text, values, state, seal: seal.state, after, kind: chunks[5].undecoded.message_type });
    """
    same, *states, views, story = await said(tmp_path, script, url=served.server.url)
    assert same is True
    assert states == ["waiting", "END"]
    assert views == [True, True]
    assert story.pop("after").startswith("7@")
    assert story == {
        "text": "ü🌊\u2028\ufffd\0ü",
        "values": [
            "ü🌊\u2028",
            [255, 0, 0xC3],
            [0xBC],
            {"a~b": {"c/d": ["NaN", "-Infinity"]}, "__proto__": {"x": "Infinity"}},
            "NaN",
            None,
        ],
        "state": "END",
        "seal": "END",
        "kind": "acme.Order",
    }


async def test_a_story_of_many_pages_is_one(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A reload in mid-stream shows the attempt that counts, and goes on live from there."""
    served = await start()
    first = await open_writer("s", queue=queue, epoch=1)
    for number in range(40):
        await first.send_chunk(f"{number:>50000}")
    await first.aclose()
    script = """
    const gateway = new Gateway(given.url);
    const { text, attempt, state, after, chunks } = await gateway.story("s");
    say({ text: text.length, attempt, state, chunks: chunks.length });
    await gateway.story("s", { maxMegabytes: 1 }).catch(({ code }) => say(code));
    say("live");
    for await (const { value } of gateway.events("s", { after })) say(value ?? null);
    """
    async with open_writer("s", queue=queue, epoch=2) as second:
        for number in range(60):
            await second.send_chunk(f"{number:>50000}")
        await second.flush()
        async with running_script(tmp_path, script, url=served.server.url) as running:
            story = {"text": 3_000_000, "attempt": 2, "state": "OPEN", "chunks": 60}
            assert await running.line() == story
            assert await running.line() == "story_too_large"
            assert await running.line() == "live"
            await second.send_chunk("after")
            await second.finish()
            assert await running.rest() == ["after", None]


async def test_a_view_shows_the_attempt_that_counts_and_says_how_it_stands(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """An application that shows text and state needs no case for resets and reconnects."""
    served = await start(retry_seconds=0.01)
    script = """
    const gateway = new Gateway(given.url);
    const view = gateway.show("s", ({ state, text, attempt, problem, ending }) =>
      say([state, text, attempt, problem?.code ?? null, ending?.message ?? null]));
    const failing = gateway.view("nope", { wait: 0 });
    await new Promise((resolve) => failing.subscribe(({ isOver }) => isOver && resolve()));
    say(failing.current.state, failing.current.problem.code);
    const [, before] = [await hear(), view.current];
    say(Object.isFrozen(before), view.getSnapshot() === before, before.text);
    """
    async with running_script(tmp_path, script, url=served.server.url) as running:
        assert await running.line() == ["waiting", "", 0, None, None]
        assert await running.line() == ["failed", "stream_not_found"]
        first = await open_writer("s", queue=queue, epoch=1)
        await first.send_chunk("half")
        assert await running.line() == ["live", "half", 1, None, None]
        await first.aclose()
        async with open_writer("s", queue=queue, epoch=2) as second:
            await second.send_chunk("whole")
            while (line := await running.line())[1] != "whole":
                assert line == ["live", "", 2, None, None]
            await second.fail(ValueError("no more"))
        running.tell(1)
        lines = await running.rest()
    assert ["ERROR", "whole", 2, None, "no more"] in lines
    assert [True, True, "whole"] in lines


async def test_a_view_reads_while_it_has_subscribers(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A component that is hidden closes its connection, and goes on where it was."""
    served = await start()
    script = """
    const view = new Gateway(given.url).view("s");
    let wake;
    const listener = ({ text }) => text && say(text);
    let unsubscribe = view.subscribe(listener);
    await hear();
    unsubscribe();
    say("left");
    await hear();
    unsubscribe = view.subscribe(listener);
    await hear();
    view.close();
    """

    def connections() -> int:
        return served.gateway.statistics().connections

    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("one")
        async with running_script(tmp_path, script, url=served.server.url) as running:
            while await running.line() != "one":
                pass
            running.tell(1)
            while await running.line() != "left":
                pass
            await eventually(lambda: connections() == 0)
            await writer.send_chunk(", two")
            running.tell(1)
            while await running.line() != "one, two":
                pass
            assert connections() == 1
            running.tell(1)
            assert set(await running.rest()) <= {"one, two"}
        await eventually(lambda: connections() == 0)


async def test_a_view_that_is_left_and_taken_up_at_once_repeats_nothing(tmp_path: Path) -> None:
    """A component that mounts twice does so between two events, at any of the steps in between."""
    script = f"""
    const {{ StreamView }} = await import({json.dumps((STATIC / "client/view.js").as_uri())});
    async function* read(_name, {{ after, signal }}) {{
      for (let i = Number(after ?? 0); i < 5; i++) {{
        await null;
        signal.throwIfAborted();
        const id = String(i + 1);
        yield {{ event: "chunk", id, offset: i + 1, attempt: 1, value: id }};
      }}
      yield {{ event: "end", id: "6", offset: 6, attempt: 1, state: "END" }};
    }}
    const texts = new Set();
    for (let steps = 0; steps < 60; steps++) {{
      const view = new StreamView("s", {{}}, read, null);
      const leave = view.subscribe(() => {{}});
      for (let step = 0; step < steps; step++) await null;
      leave();
      await new Promise((resolve) => {{
        const look = () => view.current.isOver && resolve();
        view.subscribe(look);
        look();
      }});
      texts.add(view.current.text);
    }}
    say([...texts]);
    """
    assert await said(tmp_path, script) == [["12345"]]


async def test_a_view_of_a_signal_that_is_aborted_reads_nothing(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A page that was left while it loaded must not keep a connection for ever."""
    script = """
    const gateway = new Gateway(given.url), heard = [];
    const onConnection = ({ state }) => heard.push(state);
    const early = gateway.show("s", () => {}, { signal: AbortSignal.abort(), onConnection });
    const control = new AbortController();
    await new Promise((resolve) => {
      gateway.show("s", ({ text }) => text && resolve(), { signal: control.signal, onConnection });
    });
    control.abort();
    try {
      gateway.show("s", () => { throw new Error("no such element"); }, { onConnection });
    } catch ({ message }) {
      say(message);
    }
    say(heard, early.current.state);
    """
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("one")
        await writer.flush()
        served = await start()
        found = await said(tmp_path, script, url=served.server.url)  # it ends, so nothing is open
        assert found == ["no such element", [["open"], "waiting"]]


async def test_a_view_keeps_a_bounded_part(
    start: Serve, queue: WatchedQueue, tmp_path: Path
) -> None:
    """A log of a week must not fill a tab; the newest part is what is looked at."""
    async with open_writer("s", queue=queue) as writer:
        for number in range(1000):
            await writer.send_chunk(f"{number:>10}")
    served = await start()
    script = """
    let view;
    const options = { maxCharacters: 2000, maxValues: 100 };
    for await (view of new Gateway(given.url).views("s", options)) { }
    const { text, values, chunks, isCut } = view;
    say({ chunks, isCut, bounded: text.length <= 2000 && values.length <= 100 });
    say(text.endsWith(values.slice(-40).join("")), Number(values.at(-1)));
    """
    assert await said(tmp_path, script, url=served.server.url) == [
        {"chunks": 1000, "isCut": True, "bounded": True},
        [True, 999],
    ]


async def test_requests_answer_and_report(
    start: Serve, queue: WatchedQueue, settings: Any, tmp_path: Path
) -> None:
    """What a stop button and a list need."""
    allowed = settings.model_copy(update={"gateway_anonymous": "read,list,cancel"})
    start = Serve(start._stack, queue, allowed)
    served = await start()
    for name in ("chat-7/01a20340-7d57-7aec-a6f8-6be25fb7b642/default", "plain"):
        async with open_writer(name, queue=queue) as writer:
            await writer.send_chunk("x")
    script = """
    const gateway = new Gateway(given.url);
    const { streams, is_complete } = await gateway.list({ prefix: "chat-7/", limit: 5 });
    const [{ name }] = streams;
    say(name, is_complete, (await gateway.status(name)).state);
    const { cancel_requested, state } = await gateway.stop(name);
    say(cancel_requested, state);
    await gateway.stop("plain").catch((error) => say(failed(error)));
    await gateway.status("nope").catch((error) => say(failed(error)));
    const signal = AbortSignal.abort(new Error("enough"));
    await gateway.list({ signal }).catch(({ message }) => say(message));
    """
    listed, stopped, plain, missing, aborted = await said(tmp_path, script, url=served.server.url)
    assert listed == ["chat-7/01a20340-7d57-7aec-a6f8-6be25fb7b642/default", True, "END"]
    assert stopped == [False, "END"]
    assert (plain["code"], plain["status"]) == ("not_cancellable", 409)
    assert (missing["code"], missing["status"]) == ("stream_not_found", 404)
    assert aborted == "enough"


async def test_requests_repeat_what_passes(tmp_path: Path) -> None:
    """A gateway that restarts must not make a stop button fail."""
    good = b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"offset":5}'
    answers = [
        (b"HTTP/1.1 503 Busy\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n", True),
        (b"", True),
        (good[:-4], True),
        (good, True),
        (b"HTTP/1.1 500 Broken\r\nContent-Length: 7\r\n\r\ntrouble", True),
        (b"", False),
    ]
    script = """
    const gateway = new Gateway(given.url);
    say(await gateway.status("s"));
    await gateway.status("s").catch((error) => say(failed(error)));
    await gateway.status("s", { timeoutSeconds: 0.1 }).catch(({ code }) => say(code));
    """
    async with answering(lambda _request: answers.pop(0)) as url:
        found = await said(tmp_path, script, url=url)
    assert found[0] == {"offset": 5}
    assert (found[1]["code"], found[1]["status"]) == ("http_500", 500)
    assert "trouble" in found[1]["message"]
    assert found[2] == "timeout"


def test_the_client_has_no_dependency_and_names_its_parts() -> None:
    """It is copied as it is, to places without a registry."""
    files = {"client.js", *(f"client/{file.name}" for file in (STATIC / "client").iterdir())}
    reached: set[str] = set()
    waiting = ["client.js"]

    def text(name: str) -> str:
        return (STATIC / name).read_text()

    while waiting:
        name = waiting.pop()
        reached.add(name)
        for imported in re.findall(r'^(?:im|ex)port .* from "(.*?)"', text(name), re.M):
            assert imported.startswith("./"), (name, imported)
            path = (Path(name).parent / imported).as_posix()
            if path not in reached:
                waiting.append(path)
    assert reached == files
