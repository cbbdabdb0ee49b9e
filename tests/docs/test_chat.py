"""The chat of the examples in a real browser: each feature of it is a test."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.browsers import Browser

CHAT = Path(__file__).parents[2] / "docs/examples/chat"
TOKEN_SECONDS = 2
MOST_LINES = 25
SEA = "The sea was there before the question"
LAST = "a little further up the beach. "
DRAFT = "A first draft"


@dataclass(frozen=True)
class Chat:
    """A running chat: the addresses of its page and of its back end."""

    page: str
    back_end: str


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chat]:
    folder = tmp_path_factory.mktemp("chat")
    with subprocess.Popen(
        [
            *(sys.executable, str(CHAT / "run.py"), "--port", "0", "--page-port", "0"),
            *("--token-seconds", str(TOKEN_SECONDS)),
        ],
        cwd=folder,
        env={**os.environ, "STREAMQ_SQLITE_PATH": str(folder / "streams.db")},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            [page] = re.findall(r"http://[\d.:]+", process.stdout.readline())
            config = httpx.get(f"{page}/config.js").text
            yield Chat(page, config.partition('"')[2].partition('"')[0])
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


class Page:
    """The chat's page in a browser, as a user sees it."""

    def __init__(self, chat: Chat, browser: Browser) -> None:
        self.chat = chat
        self.browser = browser

    async def open(self) -> None:
        """Open the page; errors of its script are kept."""
        await self.browser.open("about:blank")
        await self.browser.call("Page.enable")
        collecting = """
            globalThis.failures = [];
            addEventListener("error", (each) => failures.push(each.message));
            addEventListener("unhandledrejection", (each) => failures.push(String(each.reason)));
        """
        await self.browser.call("Page.addScriptToEvaluateOnNewDocument", source=collecting)
        await self.browser.call("Page.navigate", url=self.chat.page)
        await self.browser.until("document.readyState === 'complete' && location.port")

    async def log_in(self, name: str) -> None:
        """Choose a user."""
        await self.browser.until("document.querySelector('#login:not([hidden])')")
        await self.browser.value(f"document.querySelector('#login [value={name}]').click()")
        await self.browser.until("document.querySelector('#ask:not([hidden])')")

    async def ask(self, question: str) -> int:
        """Ask something; return the number of its message."""
        before: int = await self.browser.value("document.querySelectorAll('#messages li').length")
        await self.browser.value(
            f"""(() => {{
                document.querySelector('#ask input').value = {json.dumps(question)};
                document.querySelector('#ask button').click();
            }})()"""
        )
        await self.until(before, "message")
        return before

    async def until(self, number: int, condition: str) -> None:
        """Wait until a condition is true of a message: of its `answer`, `state` or `stop`."""
        await self.browser.until(
            f"""(() => {{
                const message = document.querySelectorAll('#messages li')[{number}];
                if (!message) return false;
                const answer = message.querySelector('.answer').textContent;
                const state = message.querySelector('.state').textContent;
                const stop = message.querySelector('.stop');
                return {condition};
            }})()"""
        )

    async def answer(self, number: int) -> str:
        """Return the text of an answer."""
        found: str = await self.browser.value(
            f"document.querySelectorAll('#messages li .answer')[{number}].textContent"
        )
        return found

    async def state(self, number: int) -> str:
        """Return what is said about an answer."""
        found: str = await self.browser.value(
            f"document.querySelectorAll('#messages li .state')[{number}].textContent"
        )
        return found

    async def value(self, expression: str) -> Any:
        """Evaluate JavaScript, and wait for its promise."""
        done = await self.browser.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        return done["result"].get("value")


@pytest.fixture
async def page(chat: Chat, browser: Browser) -> AsyncIterator[Page]:
    opened = Page(chat, browser)
    await opened.open()
    yield opened
    assert await browser.value("failures") == []


async def test_words_arrive_one_by_one(page: Page) -> None:
    """The reason for streaming at all."""
    await page.log_in("ada")
    number = await page.ask("What is the sea?")
    await page.until(number, f"answer.startsWith({json.dumps(SEA)}) && !stop.hidden")
    assert LAST not in await page.answer(number)
    await page.until(number, "stop.hidden")
    answer = await page.answer(number)
    assert (answer.startswith(SEA), answer.endswith(LAST)) == (True, True)
    assert await page.state(number) == ""


async def test_a_stop_leaves_what_was_there(page: Page) -> None:
    """Whoever has read enough stops the workflow, and not only the page."""
    await page.log_in("ada")
    number = await page.ask("a long answer, please")
    await page.until(number, f"answer.startsWith({json.dumps(SEA)})")
    await page.browser.value(f"document.querySelectorAll('#messages li .stop')[{number}].click()")
    await page.until(number, "state === 'stopped' && stop.hidden")
    answer = await page.answer(number)
    assert answer.startswith(SEA)
    assert answer.count(LAST) < 3
    await page.browser.call("Page.reload")
    await page.until(number, "state === 'stopped' && stop.hidden")
    assert await page.answer(number) == answer


async def test_an_error_is_shown_with_its_reason(page: Page) -> None:
    """An answer that failed must not look like one that is complete."""
    await page.log_in("ada")
    number = await page.ask("please fail")
    await page.until(number, "state.startsWith('failed') && stop.hidden")
    assert await page.state(number) == "failed: the model has no words left today"
    assert await page.answer(number) == "The sea was there before "


async def test_a_retry_begins_anew(page: Page) -> None:
    """A first attempt that failed must not stand in front of the answer."""
    await page.log_in("ada")
    number = await page.ask("retry, if you must")
    await page.until(number, f"answer.startsWith({json.dumps(DRAFT)})")
    await page.until(number, f"answer.startsWith({json.dumps(SEA)})")
    await page.until(number, "stop.hidden")
    answer = await page.answer(number)
    assert DRAFT not in answer
    assert answer.endswith(LAST)


async def test_a_reload_in_mid_stream_loses_nothing(page: Page) -> None:
    """The list of past messages is there, and the one that is being written goes on."""
    await page.log_in("ada")
    first = await page.ask("What is the sea?")
    await page.until(first, "stop.hidden")
    number = await page.ask("a long answer, please")
    await page.until(number, f"answer.startsWith({json.dumps(SEA)})")
    await page.browser.call("Page.reload")
    await page.until(number, "answer && !stop.hidden")
    await page.until(number, "stop.hidden")
    assert (await page.answer(number)).count(LAST) == 3
    assert (await page.answer(first)).count(LAST) == 1
    questions = await page.browser.value(
        "[...document.querySelectorAll('.question')].map((each) => each.textContent)"
    )
    assert questions[first:] == ["What is the sea?", "a long answer, please"]


async def token_ended(chat: Chat) -> None:
    """Wait until a token has ended that was given now."""
    async with httpx.AsyncClient(base_url=chat.back_end) as client, asyncio.timeout(20):
        key = (await client.post("/login", json={"name": "ada"})).json()["key"]
        head = {
            "Authorization": f"Bearer {(await client.post('/token', json={'key': key})).json()}"
        }
        while (await client.get("/messages", headers=head)).status_code == 200:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_token_that_ends_is_renewed(page: Page) -> None:
    """An answer takes longer than a token lasts, and nobody sees it."""
    await page.log_in("ada")
    number = await page.ask("a long answer, please")
    await page.until(number, "stop.hidden")
    renewals = "performance.getEntriesByType('resource').filter((e) => e.name.endsWith('/token'))"
    assert await page.browser.value(f"{renewals}.length") >= 2
    assert (await page.answer(number)).count(LAST) == 3
    assert await page.state(number) == ""
    await token_ended(page.chat)  # and so has the one of the page's own requests, an older one
    again = await page.ask("What is the sea?")
    await page.until(again, "stop.hidden")
    assert await page.browser.value("document.getElementById('problem').hidden") is True


async def test_companies_see_nothing_of_each_other(page: Page) -> None:
    """Neither in the page nor for whoever knows the name of a stream."""
    await page.log_in("ada")
    number = await page.ask("What is the sea?")
    await page.until(number, "stop.hidden")
    async with httpx.AsyncClient(base_url=page.chat.back_end) as client:
        answers: dict[str, list[int]] = {}
        for name in ("ada", "linus"):
            key = (await client.post("/login", json={"name": name})).json()["key"]
            token = (await client.post("/token", json={"key": key})).json()
            head = {"Authorization": f"Bearer {token}"}
            if name == "ada":
                stream = (await client.get("/messages", headers=head)).json()[-1]["stream"]
            answers[name] = []
            for method, path in (
                ("GET", f"/streams/story/{stream}"),
                ("GET", f"/streams/t/acme/story/{stream}"),
                ("GET", f"/streams/events?stream={stream}"),
                ("POST", f"/streams/cancel/{stream}"),
            ):
                answer = await client.request(method, path, headers=head)
                answers[name].append(answer.status_code)
                assert (SEA in answer.text) <= (name == "ada")
            listed = (await client.get("/streams/streams", headers=head)).json()["streams"]
            assert bool(listed) == (name == "ada")
    assert answers == {"ada": [200] * 4, "linus": [404] * 4}
    await page.browser.value("document.getElementById('leave').click()")
    await page.log_in("linus")
    assert await page.browser.value("document.getElementById('who').textContent") == "linus, globex"
    assert await page.browser.value("document.querySelectorAll('#messages li').length") == 0
    number = await page.ask("What is the sea?")
    await page.until(number, "stop.hidden")
    assert (await page.answer(number)).endswith(LAST)


async def test_pages_of_other_origins_get_nothing(chat: Chat) -> None:
    """The back end names the page's origin, and no other."""
    async with httpx.AsyncClient(base_url=chat.back_end) as client:
        key = (await client.post("/login", json={"name": "ada"})).json()["key"]
        token = (await client.post("/token", json={"key": key})).json()
        for origin, status in ((chat.page, 200), ("https://evil.example", 403)):
            head = {"Authorization": f"Bearer {token}", "Origin": origin}
            answer = await client.get("/streams/streams", headers=head)
            assert answer.status_code == status
            allowed = answer.headers.get("access-control-allow-origin")
            assert (allowed == origin) == (status == 200)


@pytest.mark.parametrize(("name", "mark"), [("back_end.py", "#"), ("page/chat.js", "//")])
def test_reading_a_stream_takes_few_lines(name: str, mark: str) -> None:
    """Reset, end, error, resume, renewal and stop are work of the library."""
    lines = [line.strip() for line in (CHAT / name).read_text().splitlines()]
    begin, end = (
        [number for number, line in enumerate(lines) if line.startswith(f"{mark} Reading, {edge}")]
        for edge in ("from here", "to here")
    )
    assert len(begin) == len(end) == 1
    counted = [line for line in lines[begin[0] + 1 : end[0]] if line]
    assert 5 <= len(counted) <= MOST_LINES
    elsewhere = "\n".join(lines[: begin[0]] + lines[end[0] :])
    assert "StreamResponses" not in elsewhere
    assert "create_app(" not in elsewhere
    assert "gateway.show" not in elsewhere
    assert "new Gateway" not in elsewhere
    assert "client.js" not in elsewhere
    assert "function newToken" not in elsewhere
