"""Tickets: for the events of one stream, for a minute, in no log."""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from httpx_sse import aconnect_sse
from pydantic import SecretStr

from streamq import ConfigurationError, Settings, load_settings, open_writer
from streamq.access import mint_token, new_ed25519_key, new_secret
from streamq.gateway import create_app

from .browsers import Browser
from .served import Serve, Served, WatchedQueue

SETTINGS = load_settings(
    backend="memory", retry_seconds=0.05, token_key=new_secret(), gateway_ticket_key=new_secret()
)


@pytest.fixture
def settings() -> Settings:
    return SETTINGS


def bearer(**of: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint_token(settings=SETTINGS, **of)}"}


async def ticket(served: Served, name: str, **of: Any) -> dict[str, Any]:
    answer = await served.client.post(f"/ticket/{name}", headers=bearer(**of))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_ticket_opens_its_stream(start: Serve, queue: WatchedQueue) -> None:
    """Also one that does not exist yet, and in another process with the same secret."""
    for name in ("x/events", "b"):
        async with open_writer(name, queue=queue) as writer:
            await writer.send_chunk(f"secret of {name}")
    served, other = await start(), await start()
    given = await ticket(served, "x/events", prefix="x")
    assert 0 < given["expires_in_seconds"] <= 60
    query = f"ticket={given['ticket']}"
    for process in (served, other):
        answer = await process.client.get(f"/events/x%2Fevents?from=beginning&{query}&wait=1")
        assert "secret of x/events" in answer.text
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "secret of x/events" in (await process.get("/" + given["path"])).text
        assert "secret" in (await process.get(f"/streams/x/events/events?{query}")).text
        assert (await process.get(f"/events/b?{query}")).status_code == 404
    early = await ticket(served, "later", every=True)
    async with open_writer("later", queue=queue) as writer:
        await writer.send_chunk("come")
    assert "come" in (await served.get("/" + early["path"])).text


async def test_a_connection_by_ticket_ends_with_the_token(
    start: Serve, queue: WatchedQueue
) -> None:
    """And a ticket is never valid for longer than the token that it was given for."""
    served = await start()
    async with open_writer("a", queue=queue) as writer:
        await writer.send_chunk("one")
        given = await ticket(served, "a", stream="a", lifetime=timedelta(seconds=2))
        assert given["expires_in_seconds"] <= 2
        async with aconnect_sse(served.client, "GET", "/" + given["path"]) as source:
            events = [event async for event in source.aiter_sse()]
        assert events[0].json()["expires_in_seconds"] <= 2
        assert events[-1].json()["reason"] == "token_expired"
        refused = await served.get("/" + given["path"])
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")


async def test_tickets_are_off_by_default(queue: WatchedQueue) -> None:
    """An address with a right in it is for those who cannot do better."""
    changed = SETTINGS.model_copy(update={"gateway_ticket_key": None})
    async with AsyncExitStack() as stack:
        giving = await Serve(stack, queue, SETTINGS)()
        served = await Serve(stack, queue, changed)()
        answer = await served.client.post("/ticket/a", headers=bearer(stream="a"))
        assert (answer.status_code, answer.json()["error"]) == (501, "tickets_off")
        assert "STREAMQ_GATEWAY_TICKET_KEY" in answer.json()["message"]
        given = await ticket(giving, "a", stream="a")
        assert (await served.get("/" + given["path"])).status_code == 401


@pytest.mark.parametrize("key", ["short", new_ed25519_key()[0], ""])
def test_a_wrong_key_is_reported_at_the_start(key: str) -> None:
    """And not shown."""
    with pytest.raises(ConfigurationError, match="STREAMQ_GATEWAY_TICKET_KEY") as refused:
        create_app(
            settings=SETTINGS.model_copy(update={"gateway_ticket_key": SecretStr(key)}),
        )
    assert not key or key not in str(refused.value)


def test_the_name_of_a_file_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The advice is for this setting, and does what it says."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.key").write_text(new_secret())
    with pytest.raises(ConfigurationError, match="STREAMQ_GATEWAY_TICKET_KEY") as refused:
        create_app(settings=SETTINGS.model_copy(update={"gateway_ticket_key": SecretStr("t.key")}))
    assert "STREAMQ_TOKEN_KEY_FILE" not in str(refused.value)
    assert 'export STREAMQ_GATEWAY_TICKET_KEY="$(cat FILE)"' in str(refused.value)


async def test_a_ticket_is_in_no_log_of_ours(
    start: Serve, queue: WatchedQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Not where it works, and not where it fails."""
    caplog.set_level(logging.DEBUG)
    served = await start()
    given = await ticket(served, "a", stream="a")
    text = given["ticket"]
    for path in ("/events/a", "/events/b", "/story/a", "/nothing", "/events/a%ff", "/healthz"):
        for name in ("ticket", "%74icket"):
            answer = await served.get(f"{path}?{name}={text}&after=x")
            assert text not in answer.text + str(answer.headers)
    ours = [each for each in caplog.records if not each.name.startswith(("httpx", "httpcore"))]
    assert ours
    assert not [each for each in ours if text[:40] in each.getMessage()]


_PROGRAM = """
import uvicorn
from streamq.gateway import create_app
uvicorn.run(create_app(), port=0, log_level="debug")
"""


async def test_a_ticket_is_not_in_the_log_of_a_server(tmp_path: Path) -> None:
    """uvicorn writes each address to its access log, with the query."""
    token_key, ticket_key = new_secret(), new_secret()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
        env={
            "STREAMQ_BACKEND": "memory",
            "STREAMQ_TOKEN_KEY": token_key,
            "STREAMQ_GATEWAY_TICKET_KEY": ticket_key,
        },
    )
    assert process.stdout is not None
    log: list[str] = []

    async def until(part: str) -> str:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while True:
                line = (await process.stdout.readline()).decode()
                assert line, "".join(log)
                log.append(line)
                if part in line:
                    return line

    try:
        url = (await until("running on")).partition("running on ")[2].split()[0]
        signing = SETTINGS.model_copy(update={"token_key": SecretStr(token_key)})
        headers = {"Authorization": f"Bearer {mint_token(settings=signing, stream='a')}"}
        async with httpx.AsyncClient(base_url=url) as client:
            given = (await client.post("/ticket/a", headers=headers)).json()
            answer = await client.get(f"/events/a?ticket={given['ticket']}&from=tail")
            assert answer.status_code == 404
        assert "/events/a?from=tail" in await until("GET /events/a")
    finally:
        process.terminate()
        rest, _ = await process.communicate()
    assert given["ticket"][:40] not in "".join(log) + rest.decode()


_FOLLOW = """
window.seen = [];
const source = window.source = new EventSource(ADDRESS);
source.addEventListener("chunk", (event) => window.seen.push(JSON.parse(event.data).value));
source.addEventListener("end", () => source.close());
"""


async def test_an_event_source_with_a_ticket(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """It sends no header of its own."""
    served = await start()
    async with open_writer("a b", queue=queue) as writer:
        await writer.send_chunk("one")
    given = await ticket(served, quote("a b"), stream="a b")
    await browser.open(f"{served.server.url}/page.css")
    await browser.until("location.pathname === '/page.css' && document.readyState === 'complete'")
    await browser.value(_FOLLOW.replace("ADDRESS", f"'/{given['path']}'"))
    await browser.until("window.seen.join() === 'one'")
    await browser.until("window.source.readyState === EventSource.CLOSED")
