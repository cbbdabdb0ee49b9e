"""A browser's token as a cookie: set, used by an EventSource, renewed, removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from http.cookies import SimpleCookie
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse
from starlette.applications import Starlette
from starlette.routing import Mount

from streamq import Settings, load_settings, open_writer
from streamq.access import mint_token, new_secret
from streamq.gateway import create_app, serve

from .browsers import Browser
from .served import Serve, WatchedQueue

SETTINGS = load_settings(backend="memory", retry_seconds=0.05, token_key=new_secret())
OWN = {"Sec-Fetch-Site": "same-origin"}
NAMED = {"Host": "streams.example.org"}
BY_PROXY = {**NAMED, "X-Forwarded-Proto": "https"}


@pytest.fixture
def settings() -> Settings:
    return SETTINGS


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def bearer(**of: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint_token(settings=SETTINGS, **of)}"}


def set_cookie(answer: httpx.Response) -> tuple[str, str, dict[str, str]]:
    """Return name, value and attributes of the cookie that an answer sets."""
    assert answer.is_success, answer.text
    ((name, morsel),) = SimpleCookie(answer.headers["Set-Cookie"]).items()
    return name, morsel.value, {key: str(value) for key, value in morsel.items() if value}


async def write(queue: WatchedQueue, *names: str) -> None:
    for name in names:
        async with open_writer(name, queue=queue) as writer:
            await writer.send_chunk(f"secret of {name}")


async def test_a_cookie_reads_what_its_token_reads(start: Serve, queue: WatchedQueue) -> None:
    """On one machine, without TLS."""
    await write(queue, "a", "b")
    served = await start()
    begun = await served.client.post("/session", headers=bearer(stream="a"))
    name, token, attributes = set_cookie(begun)
    assert name == "streamq"
    assert 890 <= int(attributes.pop("max-age")) <= begun.json()["expires_in_seconds"] + 1 <= 901
    assert attributes == {"httponly": "True", "samesite": "Strict"}
    assert served.client.cookies.get("streamq") == token
    for path in ("/events/a", "/story/a", "/streams/a", "/t/default/events/a"):
        assert (await served.client.get(path, headers=OWN)).status_code == 200, path
        other = await served.client.get(path.replace("/a", "/b"), headers=OWN)
        assert other.status_code == 404
    wins = await served.client.get("/events/b", headers={**OWN, **bearer(stream="b")})
    assert "secret of b" in wins.text
    removed = await served.client.delete("/session")
    assert (removed.status_code, set_cookie(removed)[2]["max-age"]) == (204, "0")
    assert not served.client.cookies
    assert (await served.client.get("/events/a", headers=OWN)).status_code == 401


async def test_a_cookie_by_https_is_a_secure_one(
    queue: WatchedQueue, stack: AsyncExitStack
) -> None:
    """Names that browsers take from HTTPS only; plain HTTP beyond the machine gets none."""
    await write(queue, "a")
    changed = SETTINGS.model_copy(update={"gateway_hosts": "streams.example.org"})
    served = await Serve(stack, queue, changed)(trusted_proxies=("127.0.0.1",))
    post = served.client.post
    name, token, attributes = set_cookie(
        await post("/session", headers={**BY_PROXY, **bearer(stream="a")})
    )
    assert name == "__Secure-streamq"
    assert {"secure", "httponly", "samesite"} <= attributes.keys()
    assert "domain" not in attributes
    for headers, status in (
        ({**BY_PROXY, "Cookie": f"x=y; __Secure-streamq={token}"}, 200),
        ({**BY_PROXY, "Cookie": f"streamq={token}"}, 401),
        ({**NAMED, "Cookie": f"__Secure-streamq={token}"}, 401),
        ({"Cookie": f"__Secure-streamq={token}"}, 401),
    ):
        assert (await served.client.get("/events/a", headers=headers | OWN)).status_code == status
    plain = await post("/session", headers={**NAMED, **bearer(stream="a")})
    assert (plain.status_code, plain.json()["error"]) == (400, "bad_request")
    assert "X-Forwarded-Proto" in plain.json()["message"]
    untrusting = await Serve(stack, queue, changed)()
    refused = await untrusting.client.post("/session", headers={**BY_PROXY, **bearer(stream="a")})
    assert refused.status_code == 400


async def test_a_token_that_no_cookie_holds(start: Serve) -> None:
    """A browser would drop it without a word."""
    served = await start()
    headers = bearer(stream="a", subject="x" * 2_000)
    answer = await served.client.post("/session", headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert "Set-Cookie" not in answer.headers


async def test_a_mounted_gateway_needs_its_names_for_cookies(
    queue: WatchedQueue, stack: AsyncExitStack
) -> None:
    """Its parent checks hosts, or nobody does."""
    unnamed = create_app(queue, SETTINGS)
    named = create_app(queue, SETTINGS, hosts=["chat.example"])
    parent = Starlette(routes=[Mount("/unnamed", unnamed), Mount("/named", named)])
    server = await stack.enter_async_context(serve(parent))
    client = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
    headers = {"Host": "chat.example", **bearer(stream="a")}
    answer = await client.post("/unnamed/session", headers=headers)
    assert "STREAMQ_GATEWAY_HOSTS" in answer.json()["message"]
    answer = await client.post("/named/session", headers=headers)
    assert "HTTPS" in answer.json()["message"]
    answer = await client.post("/named/session", headers=bearer(stream="a"))
    assert answer.status_code == 200
    assert client.cookies.jar  # for /named only: no application beside it gets the token
    assert [cookie.path for cookie in client.cookies.jar] == ["/named"]


async def test_any_origin_means_no_cookies(queue: WatchedQueue, stack: AsyncExitStack) -> None:
    """Every page would read with the cookie of whoever opens it."""
    await write(queue, "a")
    for origins in (["*"], ["null"], ["*", "https://chat.example"]):
        app = create_app(queue, SETTINGS, origins=origins)
        server = await stack.enter_async_context(serve(app))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
        origin = "null" if origins == ["null"] else "https://evil.example"
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        read = await client.get("/story/a", headers=headers | bearer(stream="a"))
        assert "secret" in read.text
        assert "Access-Control-Allow-Credentials" not in read.headers
        cookie = {"Cookie": f"streamq={mint_token(settings=SETTINGS, stream='a')}"}
        refused = await client.get("/story/a", headers=headers | cookie)
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")


async def test_without_tokens_there_are_no_sessions(
    queue: WatchedQueue, stack: AsyncExitStack
) -> None:
    """There would be nothing in the cookie."""
    served = await Serve(stack, queue, SETTINGS.model_copy(update={"token_key": None}))()
    for answer in (await served.client.post("/session"), await served.client.delete("/session")):
        assert (answer.status_code, answer.json()["error"]) == (501, "sessions_off")
        assert "STREAMQ_TOKEN_KEY_FILE" in answer.json()["message"]


async def test_a_reconnect_with_a_new_token_continues(start: Serve, queue: WatchedQueue) -> None:
    """Each token ends after a second; the client neither misses nor repeats an event."""
    served = await start(retry_seconds=0.1)
    seen: list[str] = []
    place = ""
    async with open_writer("a", queue=queue) as writer:
        for turn in range(3):
            headers = bearer(stream="a", lifetime=timedelta(seconds=2))
            headers |= {"Last-Event-ID": place} if place else {}
            async with aconnect_sse(served.client, "GET", "/events/a", headers=headers) as source:
                events = source.aiter_sse()
                first = await anext(events)
                assert first.event == "token"
                assert 0 < first.json()["expires_in_seconds"] <= 2
                await writer.send_chunk(f"{turn}")
                async for event in events:
                    if event.event == "chunk":
                        seen.append(event.json()["value"])
                assert event.event == "reconnect"
                assert event.json()["reason"] == "token_expired"
                place = event.json()["after"]
            await writer.send_chunk(f"{turn} between")
    rest = await served.client.get(f"/story/a?after={place}", headers=bearer(stream="a"))
    seen += [each["value"] for each in rest.json()["chunks"]]
    assert seen == ["0", "0 between", "1", "1 between", "2", "2 between"]


_FOLLOW = """
window.seen = []; window.reasons = []; window.opened = 0;
fetch("session", {method: "POST", headers: {Authorization: "Bearer FIRST"}}).then(() => {
  const source = window.source = new EventSource("events/a?wait=30");
  source.addEventListener("token", () => { window.opened++; });
  source.addEventListener("chunk", (event) => window.seen.push(JSON.parse(event.data).value));
  source.addEventListener("end", () => source.close());
  source.addEventListener("reconnect", (event) => {
    window.reasons.push(JSON.parse(event.data).reason);
  });
});
"""
_RENEW = 'fetch("session", {method: "POST", headers: {Authorization: "Bearer NEXT"}})'


async def test_an_event_source_lives_as_long_as_its_cookie_is_renewed(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """The browser reconnects by itself, with the new cookie and the place."""
    served = await start(retry_seconds=0.1)
    await browser.open(f"{served.server.url}/page.css")
    await browser.until("location.pathname === '/page.css' && document.readyState === 'complete'")
    async with open_writer("a", queue=queue) as writer:
        first = mint_token(settings=SETTINGS, stream="a", lifetime=timedelta(seconds=4))
        await browser.value(_FOLLOW.replace("FIRST", first))
        await writer.send_chunk("one")
        await browser.until("window.seen.length === 1")
        renewed = mint_token(settings=SETTINGS, stream="a")
        await browser.value(_RENEW.replace("NEXT", renewed) + ".then(() => { window.renewed = 1 })")
        await browser.until("window.renewed")
        await browser.until("window.reasons.length === 1 && window.opened === 2")
        await writer.send_chunk("two")
        await browser.until("window.seen.length === 2")
    await browser.until("window.source.readyState === EventSource.CLOSED")
    assert await browser.value("window.seen.join()") == "one,two"
    assert await browser.value("window.reasons.join()") == "token_expired"
    assert await browser.value("document.cookie") == ""  # no script reads it
    await browser.value("location.href = '/?stream=a'")  # our own page reads with it, too
    await browser.until("document.querySelector('#state.badge.END')")
    assert await browser.text("#output") == "onetwo"
