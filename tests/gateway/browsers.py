"""Drives a real browser; a test that needs one is skipped where there is no Chromium on the path.

The browser is driven through its DevTools pipe (NUL-terminated JSON on file descriptors 3 and 4),
which needs neither a driver nor a port: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
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


class Browser:
    """One tab of a headless browser."""

    def __init__(self, commands: asyncio.StreamWriter, answers: asyncio.StreamReader) -> None:
        self._commands = commands
        self._answers = answers
        self._session: str | None = None
        self._number = 0
        self.problems: list[str] = []
        """Exceptions, errors of the console, refused resources and violations of the policy."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the protocol, and wait for its answer."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        await self._commands.drain()
        while True:
            answer = json.loads((await self._answers.readuntil(b"\0"))[:-1])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

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

    async def until(self, expression: str, *, seconds: float = 8.0) -> None:
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
async def running_browser(profile_folder: Path, *more: str) -> AsyncIterator[Browser]:
    """Run a browser until the context ends; skips the test where there is none."""
    binary = program(*_NAMES, package="chromium")
    redirect = 'exec "$@" 3<&0 4>&1 </dev/null >/dev/null'
    profile = f"--user-data-dir={profile_folder}"
    process = await asyncio.create_subprocess_exec(
        *(
            "sh",
            "-c",
            redirect,
            "sh",
            binary,
            *_ARGUMENTS,
            profile,
            *more,
            "--remote-debugging-pipe",
        ),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=2**24,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Browser(process.stdin, process.stdout)
    finally:
        process.stdin.close()  # which ends the browser
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
