"""Many streams in a real browser, by a real ``EventSource``."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

from streamq import open_writer

from .browsers import Browser
from .many import address
from .served import Serve, WatchedQueue

_FOLLOW = """
window.seen = {}; window.ended = []; window.announced = []; window.opened = 0;
const source = window.source = new EventSource(ADDRESS);
source.addEventListener("open", () => { window.opened++; });
source.addEventListener("stream", (event) => {
  const data = JSON.parse(event.data);
  if (data.is_new) window.announced.push(data.stream);
});
source.addEventListener("chunk", (event) => {
  const data = JSON.parse(event.data);
  (window.seen[data.stream] ??= []).push(data.value);
});
source.addEventListener("end", (event) => window.ended.push(JSON.parse(event.data).stream));
"""
_ASK = """
fetch("streams/s3").then((answer) => answer.json())
  .then((status) => { window.state = status.state; });
"""


async def test_twelve_streams_take_one_connection_and_a_fetch_answers_at_once(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """With an EventSource for each, the seventh gets nothing, and a stop button hangs."""
    names = [f"s{i}" for i in range(12)]
    served = await start(retry_seconds=0.05, prefix_seconds=0.05)
    await browser.open(f"{served.server.url}/page.css")
    await browser.until("location.pathname === '/page.css' && document.readyState === 'complete'")
    async with AsyncExitStack() as stack:
        writers = {
            name: await stack.enter_async_context(open_writer(name, queue=queue)) for name in names
        }
        path = address(*names, prefixes=("late/",), wait="60")
        await browser.value(_FOLLOW.replace("ADDRESS", json.dumps(path)))
        for i in range(3):
            for name, writer in writers.items():
                await writer.send_chunk(f"{name} {i}")
                await writer.flush()
            every = f"Object.values(window.seen).filter((v) => v.length === {i + 1}).length === 12"
            await browser.until(every)
        await browser.value(_ASK)
        await browser.until("window.state === 'OPEN'")
        assert served.gateway.statistics().connections == 1
        # The connection is cut in the middle of all streams; the browser comes back by itself.
        served.gateway.stop_connections()
        await browser.until("window.opened === 2")
        for name, writer in writers.items():
            await writer.send_chunk(f"{name} 3")
            await writer.finish()
        async with open_writer("late/one", queue=queue) as late:
            await late.send_chunk("late/one 0")
        await browser.until("window.ended.length === 13")
    seen = json.loads(await browser.value("JSON.stringify(window.seen)"))
    assert seen == {name: [f"{name} {i}" for i in range(4)] for name in names} | {
        "late/one": ["late/one 0"]
    }
    assert await browser.value("window.announced.join()") == "late/one"


async def test_an_event_source_closes_for_good_when_it_has_every_end(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """It reconnects after every close; its id has the places of the ends, so it gets 204."""
    served = await start(retry_seconds=0.05)
    for name in ("a", "b"):
        async with open_writer(name, queue=queue) as writer:
            await writer.send_chunk(name)
    await browser.open(f"{served.server.url}/page.css")
    await browser.until("location.pathname === '/page.css' && document.readyState === 'complete'")
    await browser.value(_FOLLOW.replace("ADDRESS", json.dumps(address("a", "b"))))
    await browser.until("window.source.readyState === EventSource.CLOSED")
    assert await browser.value("window.ended.sort().join()") == "a,b"
    assert await browser.value("window.opened") == 1
