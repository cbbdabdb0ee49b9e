"""The page in a real browser."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from temporalio.api.common.v1 import Payload

from streamq import Encoding, StreamId, describe, open_writer

from . import hostile
from .browsers import Browser
from .served import AsStored, Serve, WatchedQueue

_HOSTILE = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'> & &amp; 🌊\u2028end"
)


# What the output shows: text in blocks, and values in rows, which are blocks of rows.
_PARTS = (
    "[...document.querySelectorAll('#output > .text, #output > .rows > *')]"
    ".map(n => [n.className, n.textContent])"
)
_WATCH = "import('./page/stream.js').then(({watch}) => watch(%s))"


async def test_the_page_shows_names_as_the_commands_do(start: Serve, browser: Browser) -> None:
    """A name that was copied from the page is looked for on the command line."""
    served = await start()
    await browser.open(f"{served.server.url}/")
    names = ["a b", "a%b", "a%0Ab", "a\nb", " ends  ", "  ", "\u202egnp%", "größe 🌊", "%7e", "%7g"]
    shown = "import('./page/names.js').then(({shown}) => %s.map(shown))"
    found = await browser.value(shown % json.dumps(names), waits=True)
    assert found == [str(StreamId("t", name)).removeprefix("t/") for name in names]


async def test_the_page_shows_a_stream_with_a_retry_as_it_is(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """Text of a model is never interpreted as HTML; superseded text is marked."""
    name = "page/a b&c"
    first = await open_writer(name, queue=queue, epoch=1)
    for text in ("a dra", "ft <b>bold</b>"):
        await first.send_chunk(text)
    await first.aclose()
    async with open_writer(name, queue=queue, epoch=2) as second:
        await second.send_chunk(_HOSTILE)
        await second.send_chunk({"tool": "<i>", "n": 1})
        await second.send_chunk(b"\x00\xff")
        await second.send_chunk("last")
    served = await start()

    await browser.open(f"{served.server.url}/?stream={quote(name, safe='')}")

    await browser.until("document.querySelector('#state.badge.END')")
    assert await browser.text("#title") == name
    assert await browser.text("#state") == "✓END"
    assert "whole stream" in (await browser.text("#meaning") or "")
    assert await browser.text("#connection") == "ended"
    assert await browser.text("#notice") is None
    assert await browser.value(_PARTS) == [
        ["text", _HOSTILE],
        ["json leaf", '{"tool":"<i>","n":1}'],
        ["bytes", "2 bytes  AP8="],
        ["text", "last"],
    ]
    assert await browser.text("#superseded summary") == "attempt 1 (superseded), 2 chunks"
    assert await browser.text("#superseded .old-text") == "a draft <b>bold</b>"
    attempts = "[...document.querySelectorAll('.attempt .what')].map(n => n.textContent)"
    assert await browser.value(attempts) == ["Attempt 1 superseded", "Attempt 2 ended"]
    assert await browser.text("#chunks") == "4"  # those of the superseded attempt do not count
    assert await browser.text("#offset") == "8"
    assert await browser.text("#first-fact") is None  # nobody saw it: the stream had ended
    assert await browser.text("#rate-fact") is None
    assert await browser.value("window.hacked") is None
    assert (
        await browser.value("document.querySelectorAll('#scroller script, #scroller img').length")
        == 0
    )


async def test_the_page_shows_how_a_producer_failed(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """A stream that failed must not look like one that is complete."""
    writer = await open_writer("failed", queue=queue)
    await writer.fail(ValueError("no more <tokens>"))
    await writer.aclose()
    served = await start()

    await browser.open(f"{served.server.url}/?stream=failed")

    await browser.until("document.querySelector('#state.badge.ERROR')")
    assert await browser.text("#state") == "✕ERROR"
    assert await browser.text("#reason") == "ValueError: no more <tokens>"
    assert "incomplete" in (await browser.text("#meaning") or "")


async def test_the_page_reports_a_silent_producer_and_continues_to_listen(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """The page reports silence without flicker while the browser reconnects repeatedly."""
    served = await start(heartbeat_seconds=0.05, retry_seconds=0.05)
    served.gateway.settings = served.gateway.settings.model_copy(update={"idle_seconds": 0.2})
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("a")
        await writer.flush()
        await browser.open(f"{served.server.url}/?stream=s")
        await browser.until(
            "document.getElementById('notice')?.textContent.includes('may be gone')"
        )
        await browser.value(
            "window.seen = new Set();"
            "const dot = document.getElementById('connection');"
            "new MutationObserver(() => seen.add(dot.textContent))"
            ".observe(dot, {childList: true, characterData: true, subtree: true});"
            "performance.clearResourceTimings();"
        )
        await browser.until(
            "performance.getEntriesByType('resource')"
            ".filter(each => each.name.includes('/streams/s')).length >= 2"  # after each opening
        )
        assert await browser.value("[...seen]") == []
        assert await browser.text("#connection") == "waiting for the producer"
        assert "Still listening" in (await browser.text("#notice") or "")
        await writer.send_chunk("b")
        await writer.flush()
        await browser.until("document.getElementById('output').textContent === 'ab'")
        assert "live" in await browser.value("[...seen]")


_ODD = [
    ('{"loss":NaN,"big":18446744073709551617,"f":0.1}', '{"loss":"NaN","big":18446744073709551617'),
    ("[" * 400 + "]" * 400, "json · 800 bytes · nested more than 300 deep"),
    ("{", "json · 1 bytes · "),
    ("1" * 5_000, "json · 5000 bytes · "),
    ('"\\ud83d"', "\ufffd"),
    ("null", "null"),
    ('{"__proto__":1,"constructor":2}', '{"__proto__":1,"constructor":2}'),
]


async def test_the_page_shows_every_value_and_throws_nothing(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """After one value that was no JSON the page showed nothing more."""
    async with open_writer("s", queue=queue, serializer=AsStored()) as writer:
        for text, _ in _ODD:
            await writer.send_chunk((Encoding.JSON, text.encode()))
        payload = Payload(
            metadata={"encoding": b"binary/protobuf", "messageType": b"<b>"}, data=b"?"
        )
        await writer.send_chunk((Encoding.PAYLOAD, payload.SerializeToString()))
        await writer.send_chunk((Encoding.PAYLOAD, b"\xff"))
        for data in (
            "añ🌊".encode()[:-2],
            "🌊".encode()[-2:],
            b"\xf0\x9f",
            b"\x00\xff",
            b"\xe2\x82",
        ):
            await writer.send_chunk((Encoding.BYTES, data))
        await writer.send_chunk((Encoding.TEXT, b"last"))
    served = await start()
    await browser.open(f"{served.server.url}/")
    await browser.until("document.querySelector('.chip')")  # the page has begun
    await browser.value(_WATCH % "'s'", waits=True)
    await browser.until("document.querySelector('#state.badge.END')")
    shown = [text for _, text in await browser.value(_PARTS)]
    expected = [
        *(each for _, each in _ODD),
        "binary/protobuf <b> · 1 bytes · ",
        "unknown · 1 bytes · ",
        "añ🌊",
        "2 bytes  8J8=",
        "2 bytes  AP8=",
        "2 bytes  4oI=",
        "last",
    ]
    assert len(shown) == len(expected)
    for found, beginning in zip(shown, expected, strict=True):
        assert found.startswith(beginning)
    assert browser.problems == []


_UNREADABLE = [
    ("chunk", '{"event":"chunk","offset":1,"value":NaN}'),
    ("chunk", '{"event":"chunk","offset":2,"attempt":1}'),
    ("chunk", '{"event":"chunk","offset":3,"base64":"!"}'),
    ("new", '{"event":"new","offset":4}'),
    ("chunk", '{"event":"chunk","offset":5,"attempt":1,"value":"good"}'),
]


async def test_an_event_that_the_page_cannot_read_hides_no_other(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """A newer gateway, or a proxy, may send something that this page does not know."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("text")
    served = await start()
    await browser.open(f"{served.server.url}/")
    frames = "".join(
        f"id: {number}\nevent: {kind}\ndata: {data}\n\n"
        for number, (kind, data) in enumerate(_UNREADABLE, start=1)
    )
    await browser.value(
        "const real = fetch; window.fetch = (url, ...rest) => String(url).includes('/events/')"
        f" ? Promise.resolve(new Response({json.dumps(frames)},"
        " {headers: {'Content-Type': 'text/event-stream'}})) : real(url, ...rest)"
    )
    await browser.until("document.querySelector('.chip')")  # the page has begun
    await browser.value(_WATCH % "'s'", waits=True)
    await browser.until("document.getElementById('output').textContent.endsWith('good')")
    assert "cannot be shown" in (await browser.text("#output") or "")


async def test_the_page_notices_that_a_stream_began_again(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """It would go on in the middle of another story."""
    served = await start(max_age_seconds=0.3, retry_seconds=0.05)
    first = await open_writer("s", queue=queue, epoch=10)
    await first.send_chunk("old")
    await first.flush()
    await browser.open(f"{served.server.url}/?stream=s")
    await browser.until("document.getElementById('output').textContent === 'old'")
    await first.aclose()
    await queue.delete(StreamId("default", "s"))
    async with open_writer("s", queue=queue, epoch=11) as second:
        await second.send_chunk("new")
    await browser.until("document.getElementById('notice').textContent.includes('began again')")
    assert await browser.text("#connection") == "disconnected"
    assert await browser.text("#output") == "old"


_QUIET = (
    "window.hacked === undefined && !document.cookie"
    " && location.origin + location.pathname === document.baseURI.split('?')[0]"
    " && document.querySelectorAll('script').length === 1"
    " && document.querySelectorAll('img, svg, iframe, object, embed, base, style, math')"
    ".length === 0 && document.querySelectorAll('form').length === 4"
    " && [...document.querySelectorAll('a')].map(each => each.id + each.href).join() === 'temporal'"
)


async def test_hostile_values_are_shown_and_do_nothing(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """Chunks, keys, names, errors and reasons come from models, users and other programs."""
    names = [value[:500] for value in hostile.VALUES]
    async with open_writer("s", queue=queue) as writer:
        for value in hostile.VALUES:
            await writer.send_chunk(value)
            await writer.send_chunk({value: [value, {"event": value, "offset": value}]})
            await writer.send_chunk(value.encode())
    for i, name in enumerate(names):
        failing = await open_writer(name, queue=queue)
        await failing.send_chunk("x")
        await failing.fail(hostile.VALUES[-1 - i], error_type=name)
        await failing.aclose()
    served = await start()
    for name in names:
        for path in (f"/streams?prefix={quote(name)}", f"/streams/{quote('no' + name, safe='')}"):
            answer = await served.get(path)
            assert answer.headers["content-type"] == "application/json"
            assert answer.headers["x-content-type-options"] == "nosniff"
    raw = await served.raw("s")
    assert raw.count(b"\n\n") == 3 * len(hostile.VALUES) + 1
    assert re.fullmatch(rb"retry: \d+\n(id: \d+@\d+\nevent: \w+\ndata: \{[ -~]*\}\n\n)+", raw)

    await browser.open(f"{served.server.url}/")
    await browser.until(f"document.querySelectorAll('#list button').length >= {len(names)}")
    await browser.until("document.querySelector('.chip')")  # the page has begun
    await browser.value(_WATCH % "'s'", waits=True)
    await browser.until("document.querySelector('#state.badge.END')")
    text = await browser.text("#output") or ""
    for value in hostile.VALUES:
        assert re.sub(r"\x1b\[[0-9;]*m", "", value) in text  # a colour is shown as one
    assert await browser.value(_QUIET)
    assert browser.problems == []
    for name in names:
        await browser.value(_WATCH % json.dumps(name), waits=True)
        await browser.until("document.querySelector('#state.badge.ERROR:not([hidden])')")
        seal = (await describe(name, queue=queue)).seal  # secrets are masked in what is stored
        assert seal is not None
        assert await browser.text("#reason") == f"{seal.error_type}: {seal.message}"
        assert await browser.text("#title") == str(StreamId("t", name)).removeprefix("t/")
        assert await browser.value(_QUIET), name
    assert browser.problems == []
