"""Drives a real browser; a test that needs one is skipped where there is no Chromium on the path.

The browser is driven through its DevTools pipe (NUL-terminated JSON on file descriptors 3 and 4),
which needs neither a driver nor a port: https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import asyncio
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


class Browser:
    """One tab of a headless browser."""

    def __init__(self, commands: asyncio.StreamWriter, answers: asyncio.StreamReader) -> None:
        self._commands = commands
        self._answers = answers
        self._session: str | None = None
        self._number = 0

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

    async def open(self, url: str) -> None:
        """Open a page."""
        target = (await self.call("Target.createTarget", url=url))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    async def value(self, expression: str) -> Any:
        """Evaluate JavaScript in the page."""
        done = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        return done["result"].get("value")

    async def until(self, expression: str) -> None:
        """Poll the page until an expression is true; there is no event for that."""
        try:
            async with asyncio.timeout(8):
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
