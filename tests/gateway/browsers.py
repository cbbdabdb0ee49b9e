"""Drives a real browser; a test that needs one is skipped where there is no Chromium on the path.

Tests share a browser, which takes a second to start; each has a context of its own, as a private
window: cookies, storage, caches and connections are those of no other test. The browser is driven
through its DevTools pipe (NUL-terminated JSON on file descriptors 3 and 4), which needs neither a
driver nor a port: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.programs import program

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    # Every test has a page of its own, and none is in front of the others.
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
)


_PHONE_WIDTH = 600
_KEYS = {  # code, and the text that it enters
    "Enter": (13, "\r"),
    "Tab": (9, ""),
    "Backspace": (8, ""),
    "Escape": (27, ""),
    " ": (32, " "),
    "Home": (36, ""),
    "End": (35, ""),
    "ArrowUp": (38, ""),
    "ArrowDown": (40, ""),
}


class Chromium:
    """A browser that runs; pages of it are opened in contexts.

    Args:
        profile: The directory that it keeps its files in.
        more: More options.
    """

    def __init__(self, profile: Path, *more: str) -> None:
        binary = program(*_NAMES, package="chromium")
        redirect = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'
        options = (*_ARGUMENTS, f"--user-data-dir={profile}", *more, "--remote-debugging-pipe")
        self._process = subprocess.Popen(
            ["sh", "-c", redirect, "sh", binary, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._commands = self._process.stdin
        self._answers = self._process.stdout.fileno()
        os.set_blocking(self._answers, False)
        self._received = bytearray()
        self._number = 0

    @property
    def is_running(self) -> bool:
        """Whether it can be used."""
        return self._process.poll() is None

    def send(self, command: dict[str, Any]) -> int:
        """Send a command of the protocol; return its number, which the answer has."""
        self._number += 1
        data = memoryview(json.dumps({"id": self._number, **command}).encode() + b"\0")
        while data:
            data = data[self._commands.write(data) or 0 :]
        return self._number

    async def receive(self) -> dict[str, Any]:
        """Wait for the next answer or event."""
        while (end := self._received.find(b"\0")) < 0:
            try:
                data = os.read(self._answers, 2**20)
            except BlockingIOError:
                await self._is_readable()
                continue
            assert data, "the browser has ended"
            self._received += data
        message: dict[str, Any] = json.loads(self._received[:end])
        del self._received[: end + 1]
        return message

    async def _is_readable(self) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._answers, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._answers)

    def close(self) -> None:
        """End it."""
        self._commands.close()  # which ends the browser
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class Browser:
    """A context of a headless browser, and the tab of it that was opened last."""

    def __init__(self, chromium: Chromium) -> None:
        self._chromium = chromium
        self._context: str | None = None
        self._session: str | None = None
        self._sessions: set[str] = set()
        self.problems: list[str] = []
        """Exceptions, errors of the console, refused resources and violations of the policy."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol, and wait for its answer."""
        if self._context is not None and method.startswith(("Browser.", "Target.create")):
            params["browserContextId"] = self._context
        command: dict[str, Any] = {"method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        number = self._chromium.send(command)
        while True:
            answer = await self._chromium.receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            if answer.get("sessionId") in self._sessions:
                self._note(answer)

    async def begin(self) -> None:
        """Make a context."""
        self._context = (await self.call("Target.createBrowserContext"))["browserContextId"]

    async def end(self) -> None:
        """Close the pages of the context, and forget what they have kept."""
        self._session = None
        await self.call("Target.disposeBrowserContext", browserContextId=self._context)

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what a developer would see as an error."""
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.problems.append(
                    details.get("exception", {}).get("description", details["text"])
                )
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                entry = params["entry"]
                self.problems.append(f"{entry['text']} {entry.get('url', '')}")
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "assert"):
                self.problems.append(str([each.get("value") for each in params["args"]]))

    async def open(self, url: str) -> None:
        """Open a page in a new tab."""
        self._session = None
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._sessions.add(attached["sessionId"])
        for domain in ("Runtime", "Log", "Page"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=url)

    async def value(self, expression: str, *, waits: bool = False) -> Any:
        """Evaluate JavaScript in the page.

        Args:
            expression: The code.
            waits: Whether to wait for the promise that it returns.
        """
        done = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=waits
        )
        return done["result"].get("value")

    async def look(self, width: int, height: int, *, is_dark: bool = False) -> None:
        """Give the page a size and a colour scheme."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < _PHONE_WIDTH,
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=features)

    async def picture(self) -> bytes:
        """Return what is seen, as PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    async def type(self, text: str) -> None:
        """Enter text where the focus is."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, *, shift: bool = False) -> None:
        """Press and release a key, as a person does."""
        code, text = _KEYS.get(key, (ord(key.upper()) if len(key) == 1 else 0, key))
        common = {"key": key, "windowsVirtualKeyCode": code, "modifiers": 8 if shift else 0}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    @property
    def errors(self) -> list[str]:
        """Problems of the page itself; browsers also log answers such as 401."""
        return [each for each in self.problems if not each.startswith("Failed to load resource")]

    async def until(self, expression: str, *, seconds: float = 25.0) -> None:
        """Poll the page until an expression is true; there is no event for that."""
        try:
            async with asyncio.timeout(seconds):
                while await self.value(f"Boolean({expression})") is not True:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"never: {expression}; the page says: {await self.text('body')}")

    async def text(self, selector: str) -> str | None:
        """Return the text of an element as stored, or nothing if it is hidden."""
        found = f"document.querySelector({json.dumps(selector)})"
        shown: str | None = await self.value(f"{found}.hidden ? null : {found}.textContent")
        return shown


@asynccontextmanager
async def context_of(chromium: Chromium) -> AsyncIterator[Browser]:
    """Yield a new context of a browser."""
    browser = Browser(chromium)
    await browser.begin()
    try:
        yield browser
    finally:
        if chromium.is_running:
            await browser.end()


@asynccontextmanager
async def running_browser(profile: Path, *more: str) -> AsyncIterator[Browser]:
    """Run a browser of one's own until the context ends."""
    chromium = Chromium(profile, *more)
    try:
        async with context_of(chromium) as browser:
            yield browser
    finally:
        chromium.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Chromium]]:
    """A function that returns the browser of this process, which runs."""
    started: list[Chromium] = []

    def running() -> Chromium:
        if not started or not started[-1].is_running:
            started.append(Chromium(tmp_path_factory.mktemp("chromium")))
        return started[-1]

    yield running
    for each in started:
        each.close()


@pytest.fixture
async def browser(chromium: Callable[[], Chromium]) -> AsyncIterator[Browser]:
    """A context for one test; skips the test where there is no browser."""
    async with context_of(chromium()) as opened:
        yield opened
