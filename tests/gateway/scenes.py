"""Brings the gateway's page into every state that people see it in, over a memory queue."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from streamq import Settings, load_settings, open_writer
from streamq.access import mint_token, new_secret
from streamq.driver import ChunkQueue, QueueOptions
from streamq.gateway import GatewayOptions, create_app, serve
from streamq.memory import MemoryDriver, MemorySettings

from .browsers import Browser
from .served import WatchedQueue

LONG_CHUNKS = 100_000
MANY = 500
_PATIENCE = 60.0
_SHOWS_END = "document.querySelector('#state.END')"
_NOT_WRITTEN = "[...document.querySelectorAll('#list .word')].every(each => each.textContent)"

MARKDOWN = """# What the log shows

The order service failed **three times** between 14:02 and 14:05:

1. `POST /orders` returned 503
2. the retry after 2 s succeeded
3. nothing was lost

```python
async with open_writer("chat-7", queue=queue) as writer:
    await writer.send_chunk("hello")
```

| attempt | chunks | took |
|---|---|---|
| 1 | 24 | 12 s |
| 2 | 9 | 3 s |

> A link stays text: [docs](https://example.org), and so does <b>HTML</b>.
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """One state of the page.

    Attributes:
        name: What a picture of it is called.
        stream: The stream that is open; none for the list alone.
        until: JavaScript that is true when the state is reached.
        gateway: Which of the gateways shows it.
        does: JavaScript to run before.
        after: JavaScript that is true when that may run.
    """

    name: str
    stream: str | None
    until: str
    gateway: str = "open"
    does: str = ""
    after: str = "document.querySelector('#list button')"


def _run(number: int) -> str:
    return str(uuid.UUID(int=0x0D0E7A5293A84F319A533D61B3A50000 + number))


_LOG = f"build-41/{_run(900)}/log"
_ATTEMPTS = f"chat-7/{_run(901)}/answer"
_FAILED = f"report-2026/{_run(902)}/default"

SCENES = [
    Scene("list", None, f"document.querySelectorAll('#list li').length >= 400 && {_NOT_WRITTEN}"),
    Scene("markdown", "answers/markdown", _SHOWS_END),
    Scene("json", "tools/calls", _SHOWS_END),
    Scene("log", _LOG, "document.querySelector('#output .fg-1')"),
    Scene("attempts", _ATTEMPTS, "document.querySelectorAll('.attempt').length === 3"),
    Scene("end", "answers/short", _SHOWS_END),
    Scene("error", _FAILED, "document.querySelector('#state.ERROR')"),
    Scene("cancelled", "jobs/cancelled", "document.querySelector('#state.CANCELLED')"),
    Scene("absent", "jobs/later", "document.querySelector('#state.ABSENT')"),
    Scene("gap", "trimmed", "document.querySelector('.gap')", "trimmed"),
    Scene(
        "idle",
        "jobs/silent",
        "document.getElementById('notice').textContent.includes('may be gone')",
        "idle",
    ),
    Scene("token", "private", "document.querySelector('#token-dialog[open]')", "tokens"),
    Scene(
        "help",
        "answers/short",
        "document.querySelector('#help-dialog[open]')",
        does="document.getElementById('help-button').click()",
    ),
    Scene(
        "stop",
        _ATTEMPTS,
        "document.querySelector('#stop-dialog[open]')",
        "stopping",
        "document.getElementById('stop').click()",
        "!document.getElementById('stop').hidden",
    ),
]
LONG_SCENE = Scene("long", "exports/long", _SHOWS_END)


class Stage:
    """Gateways whose streams are in every state.

    Args:
        urls: Address of each gateway by its name.
        token: A token for the one that takes tokens.
    """

    def __init__(self, urls: dict[str, str], token: str) -> None:
        self.urls = urls
        self.token = token

    async def show(self, browser: Browser, scene: Scene, width: int, height: int) -> None:
        """Open the page in a state, in a window of a size, and wait until it is reached."""
        stream = "" if scene.stream is None else f"?stream={quote(scene.stream, safe='')}"
        await browser.open("about:blank")
        await browser.look(width, height)
        await browser.call("Page.navigate", url=f"{self.urls[scene.gateway]}/{stream}")
        if scene.does:
            await browser.until(scene.after, seconds=_PATIENCE)
            await browser.value(scene.does)
        await browser.until(scene.until, seconds=_PATIENCE)


@asynccontextmanager
async def staged(*, streams: int = MANY, with_long: bool = False) -> AsyncIterator[Stage]:
    """Run the gateways until the context ends.

    Args:
        streams: How many streams the list has, about.
        with_long: Whether the long stream is among them.
    """
    async with AsyncExitStack() as stack:
        queue = await _queue(stack)
        await _write_all(stack, queue, streams)
        if with_long:
            await _write_long(queue)
        ui = "https://temporal.example.org"
        plain = load_settings(backend="memory", gateway_temporal_ui=ui)
        idle = load_settings(backend="memory", idle_seconds=0.5)
        tokens = load_settings(backend="memory", token_key=new_secret())
        stopping = load_settings(
            backend="memory", gateway_anonymous="read,list,cancel", gateway_temporal_ui=ui
        )
        trimmed = await _queue(stack)
        await _write_trimmed(stack, trimmed)
        urls = {
            "open": await _serve(stack, queue, plain),
            "tokens": await _serve(stack, queue, tokens),
            "stopping": await _serve(stack, queue, stopping),
            "idle": await _serve(stack, queue, idle),
            "trimmed": await _serve(stack, trimmed, plain),
        }
        token = mint_token(settings=tokens, every=True, actions=("read", "list"), subject="ada")
        yield Stage(urls, token)


async def long_gateway(stack: AsyncExitStack, settings: Settings) -> str:
    """Serve the long stream alone, and return the address of the gateway."""
    queue = await _queue(stack)
    await _write_long(queue)
    return await _serve(stack, queue, settings)


async def _serve(stack: AsyncExitStack, queue: ChunkQueue, settings: Settings) -> str:
    options = GatewayOptions(heartbeat_seconds=0.1, retry_seconds=0.1)
    server = await stack.enter_async_context(serve(create_app(queue, settings, options=options)))
    return server.url


async def _queue(stack: AsyncExitStack) -> WatchedQueue:
    options = QueueOptions(ttl=timedelta(hours=1))
    inner = await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex))
    return await stack.enter_async_context(WatchedQueue(inner))


def _ago(seconds: float) -> int:
    """Return the epoch of an attempt that began so many seconds ago."""
    return int((time.time() - seconds) * 1e6)


async def _write(
    queue: ChunkQueue, name: str, values: list[Any], seconds: float = 40.0, ends: str = "END"
) -> None:
    """Write a stream that one attempt has ended."""
    async with open_writer(name, queue=queue, epoch=_ago(seconds)) as writer:
        for value in values:
            await writer.send_chunk(value)
        if ends == "ERROR":
            await writer.fail(TimeoutError("the model did not answer within 30 s"))
        elif ends == "CANCELLED":
            await writer.cancel("stopped by the user")


async def _write_all(stack: AsyncExitStack, queue: ChunkQueue, streams: int) -> None:
    """Write what the scenes show, and others around it."""
    endings = ("END", "END", "END", "ERROR", "CANCELLED", "END")
    topics = ("default", "log", "reasoning")
    for number in range(streams - 10):
        ends = endings[number % len(endings)]
        if number % 7 == 0:
            name = f"imports/2026-{number % 12 + 1:02}/file-{number}"
        else:
            name = f"chat-{number // 3}/{_run(number // 3)}/{topics[number % 3]}"
        seconds = 90.0 + number * 37
        if number % 40 == 5:
            writer = await open_writer(name, queue=queue, epoch=_ago(seconds))
            stack.push_async_callback(writer.aclose)
            await writer.send_chunk("still at work")
            await writer.flush()
        else:
            await _write(queue, name, ["a"] * (number % 9 + 1), seconds, ends)
    await _write(queue, "answers/markdown", [MARKDOWN[i : i + 12] for i in range(0, 700, 12)])
    await _write(queue, "answers/short", ["The answer ", "is ", "forty-two."])
    await _write(queue, "tools/calls", _json_values())
    await _write(queue, _LOG, _log_lines())
    await _write(
        queue, _FAILED, ["The first part of the report is ", "complete, the second "], 75, "ERROR"
    )
    await _write(queue, "jobs/cancelled", ["Page 1 of 12\n", "Page 2 of 12\n"], 60, "CANCELLED")
    await _write_attempts(stack, queue)
    silent = await open_writer("jobs/silent", queue=queue, epoch=_ago(70))
    stack.push_async_callback(silent.aclose)
    await silent.send_chunk("The last thing that was heard of this producer.")
    await silent.flush()


async def _write_attempts(stack: AsyncExitStack, queue: ChunkQueue) -> None:
    """Write three attempts, each of which begins anew; the last one is at work."""
    for seconds, text in (
        (95.0, "Once upon a midnight dreary, "),
        (52.0, "It was the best of times, "),
    ):
        writer = await open_writer(_ATTEMPTS, queue=queue, epoch=_ago(seconds))
        for word in text.split(" "):
            await writer.send_chunk(word + " ")
        await writer.flush()
        await writer.aclose()
    writer = await open_writer(_ATTEMPTS, queue=queue, epoch=_ago(31))
    stack.push_async_callback(writer.aclose)
    for word in [
        "Call",
        "me",
        "Ishmael.",
        "Some",
        "years",
        "ago,",
        "never",
        "mind",
        "how",
        "long",
        "precisely,",
        "",
    ]:
        await writer.send_chunk(word + " ")
    await writer.flush()


async def _write_trimmed(stack: AsyncExitStack, queue: WatchedQueue) -> None:
    async with open_writer("trimmed", queue=queue) as writer:
        for number in range(20):
            await writer.send_chunk(f"line {number}\n")
            await writer.flush()
    queue.trimmed = 6


async def _write_long(queue: ChunkQueue) -> None:
    async with open_writer(LONG_SCENE.stream or "", queue=queue, epoch=_ago(300)) as writer:
        for number in range(LONG_CHUNKS):
            await writer.send_chunk(f"word{number} " if number % 12 else f"word{number}.\n")


def _json_values() -> list[Any]:
    return [
        {"tool": "search", "query": "tides", "n": 3},
        {
            "tool": "search",
            "results": [
                {
                    "title": f"Result {i}",
                    "score": 0.93 - i / 10,
                    "url": f"https://example.org/{i}",
                    "tags": ["sea", "moon"],
                    "seen": None,
                }
                for i in range(3)
            ],
            "took": {"seconds": 0.412, "cached": False},
        },
        "The model says: ",
        {"rows": [{"id": i, "name": f"row {i}", "values": list(range(5))} for i in range(1_000)]},
        {"id": 18446744073709551617, "ratio": 0.1, "text": "a longer text " * 10},
    ]


def _log_lines() -> list[str]:
    return [
        "\x1b[1m$ make test\x1b[0m\n",
        "\x1b[36mcollecting\x1b[0m 412 tests in \x1b[2m/srv/app/tests\x1b[0m\n",
        "tests/test_orders.py \x1b[32m......................\x1b[0m [ 23%]\n",
        "tests/test_payments.py \x1b[32m......\x1b[31mF\x1b[32m..\x1b[33ms\x1b[0m [ 54%]\n",
        "\x1b[38;5;208mwarning\x1b[0m: 3 deprecated calls \x1b[35m(see below)\x1b[0m\n",
        "\x1b[31;1mFAILED\x1b[0m tests/test_payments.py::\x1b[4mtest_refund\x1b[0m\n",
        "\x1b[41;97m ERROR \x1b[0m expected \x1b[32m200\x1b[0m, got \x1b[31m503\x1b[0m\n",
        "\x1b[42m OK \x1b[0m \x1b[7m 411 passed \x1b[0m \x1b[90min 12.4 s\x1b[0m\n",
        "not acted on: \x1b[2J\x1b]0;title\x07 end\n",
    ]
