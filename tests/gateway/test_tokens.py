"""Requests with a token, without one, and with a bad one."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from httpx_sse import aconnect_sse
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from streamq import ConfigurationError, Settings, load_settings, open_writer
from streamq.access import mint_token, new_secret
from streamq.gateway import create_app
from streamq.gateway import serve as serve_app

from .served import Serve, Served, WatchedQueue

SETTINGS = load_settings(backend="memory", retry_seconds=0.05, token_key=new_secret())
OTHERS = [
    "chat-70",
    "chat-70/a",
    "chat",
    "Chat-7",
    "chat-7%2f..%2fsecret",
    "x/chat-7",
    " chat-7",
    "secret",
    "chat-7 ",
    "chat\u20117",  # a hyphen that only looks the same
]


@pytest.fixture
def settings() -> Settings:
    return SETTINGS


def bearer(**of: Any) -> dict[str, str]:
    of.setdefault("every", not of.keys() & {"stream", "workflow", "prefix"})
    return {"Authorization": f"Bearer {mint_token(settings=SETTINGS, **of)}"}


async def write(queue: WatchedQueue, *names: str, tenant: str = "default") -> None:
    settings = SETTINGS.model_copy(update={"tenant": tenant})
    for name in names:
        async with open_writer(name, queue=queue, settings=settings) as writer:
            await writer.send_chunk(f"secret of {name}")


async def get(served: Served, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    return await served.client.get(path, headers=headers or {})


PATHS = ["/streams/a/events", "/streams/a", "/streams", "/streams/a/events?wait=1"]


@pytest.mark.parametrize("path", PATHS)
async def test_without_a_token_nothing_is_read(
    path: str, start: Serve, queue: WatchedQueue
) -> None:
    """And the answer says how to come back."""
    await write(queue, "a")
    served = await start()
    answer = await get(served, path)
    assert (answer.status_code, answer.json()["error"]) == (401, "token_required")
    assert answer.json()["message"].endswith("after the word Bearer")  # and not masked
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge.startswith('Bearer realm="streamq"')
    assert "error=" not in challenge  # RFC 6750, 3.1
    metadata = challenge.partition('resource_metadata="')[2].rstrip('"')
    described = (await get(served, metadata)).json()
    assert "authorization_servers" not in described  # our own keys have no address
    assert described["authorization_details_types_supported"] == ["streamq"]
    assert described["bearer_methods_supported"] == ["header"]


BAD_HEADERS = {
    "no token": "Bearer",
    "empty": "",
    "other scheme": "Basic YTpi",
    "not a token": "Bearer abc",
    "quoted": 'Bearer "abc"',
    "two tokens": "Bearer a.b.c, Bearer d.e.f",
    "unsigned": "Bearer eyJhbGciOiJub25lIn0.e30.",
    "huge": "Bearer " + "a" * 9_000,
}


@pytest.mark.parametrize("kind", BAD_HEADERS)
@pytest.mark.parametrize("anonymous", ["", "read, list"])
async def test_a_bad_token_is_never_anonymous(
    kind: str, anonymous: str, queue: WatchedQueue
) -> None:
    """A reader whose token is broken would otherwise hear nothing, and not know why."""
    await write(queue, "a")
    changed = SETTINGS.model_copy(update={"gateway_anonymous": anonymous})
    async with AsyncExitStack() as stack:
        served = await Serve(stack, queue, changed)()
        for path in PATHS:
            answer = await get(served, path, {"Authorization": BAD_HEADERS[kind]})
            assert answer.status_code == 401, path
            assert "WWW-Authenticate" in answer.headers
            assert "secret" not in answer.text


async def test_what_is_anonymous_is_what_a_setting_says(queue: WatchedQueue) -> None:
    """Reading for everybody, listing for nobody."""
    await write(queue, "a")
    changed = SETTINGS.model_copy(update={"gateway_anonymous": "read"})
    async with AsyncExitStack() as stack:
        served = await Serve(stack, queue, changed)()
        assert "secret of a" in (await get(served, "/streams/a/events")).text
        assert (await get(served, "/streams/a")).status_code == 200
        answer = await get(served, "/streams")
        assert (answer.status_code, answer.json()["error"]) == (401, "token_required")
        assert (await get(served, "/streams", bearer(actions=["list"]))).status_code == 200


async def test_without_a_token_the_answer_asks_for_one(queue: WatchedQueue) -> None:
    """Where some things are permitted to everybody, the rest is not a matter of a setting."""
    await write(queue, "a")
    changed = SETTINGS.model_copy(
        update={"gateway_anonymous": "read", "gateway_ticket_key": SecretStr(new_secret())}
    )
    requests = [
        ("GET", "/streams"),
        ("DELETE", "/streams/a"),
        ("POST", "/cancel/a"),
        ("POST", "/revocations"),
        ("POST", "/ticket/a"),
        ("POST", "/session"),
    ]
    async with AsyncExitStack() as stack:
        served = await Serve(stack, queue, changed)()
        for method, path in requests:
            answer = await served.client.request(method, path)
            seen = (path, answer.status_code, answer.json()["error"])
            assert seen == (path, 401, "token_required")
            assert "header Authorization" in answer.json()["message"]
            assert "insufficient_scope" not in answer.headers["WWW-Authenticate"]
            reader = bearer(actions=["describe"])
            if path not in ("/revocations", "/session"):
                answer = await served.client.request(method, path, headers=reader)
                assert answer.json()["error"] == "insufficient_scope"
                assert "the token does not permit" in answer.json()["message"]
        assert (await get(served, "/streams/a")).status_code == 200


@pytest.mark.parametrize(
    ("changed", "is_warned"),
    [
        ({"token_key": None}, True),
        ({"token_key": None, "gateway_anonymous": " "}, True),
        ({"token_key": None, "gateway_anonymous": "read,list"}, False),
        ({"token_key": None, "gateway_anonymous": "nothing"}, False),
        ({}, False),
    ],
)
async def test_a_gateway_that_is_open_by_default_says_so(
    changed: dict[str, Any],
    is_warned: bool,
    queue: WatchedQueue,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A variable that is missing in a deployment would open it without a word."""
    Starlette(routes=[Mount("/live", create_app(queue, SETTINGS.model_copy(update=changed)))])
    warned = [each for each in caplog.messages if "no issuer of tokens is configured" in each]
    assert len(warned) == is_warned
    assert all("STREAMQ_GATEWAY_ANONYMOUS" in each for each in warned)


async def test_a_closed_gateway_stays_closed(queue: WatchedQueue) -> None:
    """With a setting that says so it is not opened by a key that is missing."""
    await write(queue, "a")
    closed = SETTINGS.model_copy(update={"token_key": None, "gateway_anonymous": " Nothing "})
    async with AsyncExitStack() as stack:
        served = await Serve(stack, queue, closed)()
        for method, path in [
            *(("GET", path) for path in PATHS),
            ("GET", "/story/a"),
            ("DELETE", "/streams/a"),
            ("POST", "/cancel/a"),
            ("POST", "/revocations"),
        ]:
            answer = await served.client.request(method, path, headers=bearer())
            assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
            assert "issuer" in answer.json()["message"]
    async with AsyncExitStack() as stack:
        with_key = SETTINGS.model_copy(update={"gateway_anonymous": "nothing"})
        served = await Serve(stack, queue, with_key)()
        assert (await get(served, "/streams/a")).status_code == 401
        assert (await get(served, "/streams/a", bearer())).status_code == 200


async def test_a_mistyped_action_is_refused() -> None:
    """Of a gateway that is open by mistake nobody would hear."""
    for value in ("raed", "read list", "nothing,read"):
        with pytest.raises(ConfigurationError, match="STREAMQ_GATEWAY_ANONYMOUS"):
            create_app(settings=SETTINGS.model_copy(update={"gateway_anonymous": value}))


async def test_without_issuers_tokens_are_the_proxys(queue: WatchedQueue) -> None:
    """A gateway behind a proxy with a login of its own works as before."""
    await write(queue, "a")
    async with AsyncExitStack() as stack:
        open_settings = SETTINGS.model_copy(update={"token_key": None})
        served = await Serve(stack, queue, open_settings)()
        answer = await get(served, "/streams/a", {"Authorization": "Bearer of-the-proxy"})
        assert answer.status_code == 200
        assert (await get(served, "/.well-known/oauth-protected-resource")).status_code == 404


async def test_a_token_opens_its_streams(start: Serve, queue: WatchedQueue) -> None:
    """One stream, a workflow's, those below a prefix."""
    run = "chat-7/11111111-2222-3333-4444-555555555555/main"
    await write(queue, "chat-7", run, "chat-7/a")
    served = await start()
    for of, opened in [
        ({"stream": "chat-7"}, {"chat-7"}),
        ({"workflow": "chat-7"}, {run}),
        ({"prefix": "chat-7"}, {"chat-7", run, "chat-7/a"}),
    ]:
        for name in ("chat-7", run, "chat-7/a"):
            answer = await get(served, f"/streams/{quote(name)}/events", bearer(**of))
            assert answer.status_code == (200 if name in opened else 404)
            assert ("secret" in answer.text) == (name in opened)


@pytest.mark.parametrize("name", OTHERS)
async def test_other_streams_are_not_there(name: str, start: Serve, queue: WatchedQueue) -> None:
    """In status, body and headers, by every route; also for the name of what is there."""
    await write(queue, "chat-7", *(each for each in OTHERS))
    served = await start()
    token = bearer(prefix="chat-7", actions=["read", "describe", "list", "cancel", "delete"])
    nothing = "nothing-of-this-name"
    encoded = quote(name, safe="")
    for path in (
        "/streams/{}/events",
        "/streams/{}",
        "/streams/{}/events?from=tail",
        "/streams/{}/events?from=last",
        "/streams/{}/events?after=1",
        "/streams/{}/events?after=1@1",
        "/streams/{}/events?after=99999",
    ):
        theirs = await get(served, path.format(encoded), token)
        absent = await get(served, path.format(nothing), token)
        assert (theirs.status_code, absent.status_code) == (404, 404), path
        shown = theirs.json()["message"].replace(quote(name), nothing).replace(name, nothing)
        assert shown == absent.json()["message"]
        ignored = ("date", "content-length")
        heads = [{k: v for k, v in a.headers.items() if k not in ignored} for a in (theirs, absent)]
        assert heads[0] == heads[1]
    listed = (await get(served, "/streams?limit=1000", token)).json()["streams"]
    assert [each["name"] for each in listed] == ["chat-7"]


async def test_waiting_for_anothers_stream_is_waiting_for_nothing(
    start: Serve, queue: WatchedQueue
) -> None:
    """The wait takes as long, and ends alike, whether the stream is there or not."""
    await write(queue, "theirs")
    served = await start()
    token = bearer(stream="mine")
    answers = {}
    for name in ("theirs", "nobodys"):
        began = time.monotonic()
        answer = await get(served, f"/streams/{name}/events?wait=1", token)
        assert time.monotonic() - began >= 1, (name, answer.status_code, answer.text)
        assert f"no stream default/{name}, " in answer.text
        error = answer.text.partition("event: error")[2]  # before it, the token's seconds
        answers[name] = error.replace(name, "x")
    assert answers["theirs"] == answers["nobodys"]
    assert "stream_not_found" in answers["theirs"]
    assert "streamq-hidden" not in answers["theirs"]


async def test_a_right_that_is_missing_is_named_to_those_who_know_the_stream(
    start: Serve, queue: WatchedQueue
) -> None:
    """An own stream with too narrow a token is 403, with the reason."""
    await write(queue, "a")
    served = await start()
    answer = await get(served, "/streams/a/events", bearer(stream="a", actions=["describe"]))
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert (await get(served, "/streams/a", bearer(stream="a", actions=["describe"]))).json()


async def test_a_hidden_stream_has_its_own_name_in_the_log(
    start: Serve, queue: WatchedQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator could do nothing with the name that replaces it, and others must not know it."""
    caplog.set_level("DEBUG", "streamq")
    await write(queue, "theirs")
    served = await start()
    await get(served, "/streams/theirs/events?wait=0", bearer(stream="mine"))
    assert "reading default/theirs stopped" in caplog.text
    assert "streamq-hidden" not in caplog.text


async def test_the_clock_may_be_set_while_a_token_is_in_use(
    start: Serve, queue: WatchedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that slept wakes with a later clock, and its connections' tokens have ended."""
    served = await start()
    async with open_writer("a", queue=queue, settings=SETTINGS) as writer:
        await writer.send_chunk("one")
        async with aconnect_sse(
            served.client, "GET", "/streams/a/events", headers=bearer(stream="a")
        ) as source:
            events = source.aiter_sse()
            while "one" not in (await anext(events)).data:
                pass
            later = time.time() + 3_600
            monkeypatch.setattr("streamq.gateway._live_response.time.time", lambda: later)
            await writer.send_chunk("two")
            rest = [event async for event in events]
    assert rest[-1].json()["reason"] == "token_expired"


async def test_a_mounted_gateway_says_where_it_is(queue: WatchedQueue) -> None:
    """At the root of its parent nothing would answer."""
    parent = Starlette(routes=[Mount("/streams-of-us", app=create_app(queue, SETTINGS))])
    async with serve_app(parent) as server, httpx.AsyncClient(base_url=server.url) as client:
        refused = await client.get("/streams-of-us/streams/a", headers={"Host": 'x"y'})
        challenge = refused.headers["WWW-Authenticate"]
        assert challenge.count('"') == 4
        metadata = challenge.partition('resource_metadata="')[2].rstrip('"')
        described = (await client.get(httpx.URL(metadata).path)).json()
        assert described["resource"] == f"{server.url.rstrip('/')}/streams-of-us/"


async def test_tenants_do_not_meet(start: Serve, queue: WatchedQueue) -> None:
    """The tenant is the token's, whatever streams are called."""
    await write(queue, "a", "only-default")
    await write(queue, "a", "only-acme", tenant="acme")
    served = await start()
    token = bearer(tenant="acme", actions=["read", "list"])
    listed = (await get(served, "/streams", token)).json()["streams"]
    assert sorted(each["name"] for each in listed) == ["a", "only-acme"]
    assert (await get(served, "/streams/only-default", token)).status_code == 404
    for name in ("default/only-default", "..%2Fdefault%2Fonly-default", "%00only-default"):
        assert (await get(served, f"/streams/{name}", token)).status_code == 404
    assert (await get(served, "/streams/a", token)).json()["tenant"] == "acme"


async def test_lists_are_filtered_before_they_are_cut(start: Serve, queue: WatchedQueue) -> None:
    """Ten streams of others would otherwise hide one's own."""
    await write(queue, *(f"b-{i}" for i in range(20)), "mine/1", "mine/2")
    served = await start()
    token = bearer(prefix="mine", actions=["list"])
    answer = (await get(served, "/streams?limit=2", token)).json()
    assert sorted(each["name"] for each in answer["streams"]) == ["mine/1", "mine/2"]
    assert answer["is_complete"]


async def test_a_connection_ends_with_its_token(start: Serve, queue: WatchedQueue) -> None:
    """With a named event, the place to go on, and the lifetime in advance; nothing is lost."""
    served = await start()
    async with open_writer("a", queue=queue, settings=SETTINGS) as writer:
        await writer.send_chunk("one")
        token = bearer(stream="a", lifetime=timedelta(seconds=2))
        async with aconnect_sse(served.client, "GET", "/streams/a/events", headers=token) as source:
            events = [event async for event in source.aiter_sse()]
        assert events[0].event == "token"
        assert 0 < events[0].json()["expires_in_seconds"] <= 2
        assert (events[-1].event, events[-1].json()["reason"]) == ("reconnect", "token_expired")
        place = events[-1].json()["after"]
        assert (await get(served, "/streams/a/events", token)).status_code == 401
        await writer.send_chunk("two")
    answer = await served.client.get(f"/streams/a/events?after={place}", headers=bearer(stream="a"))
    assert "two" in answer.text
    assert "one" not in answer.text


async def test_health_says_nothing_of_others(start: Serve, queue: WatchedQueue) -> None:
    """It is open to everybody, and counts the streams of all."""
    await write(queue, "a")
    served = await start()
    assert (await get(served, "/healthz")).json() == {"status": "ok"}
    assert (await get(served, "/readyz")).json() == {"status": "ok"}
    assert (await get(served, "/")).status_code == 200


async def test_a_page_of_another_origin_may_send_its_token(queue: WatchedQueue) -> None:
    """A browser asks first whether the header is allowed."""
    await write(queue, "a")
    app = create_app(queue, SETTINGS, origins=["https://chat.example.org"])
    async with serve_app(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        origin = {"Origin": "https://chat.example.org"}
        asked = await client.options(
            "/streams/a/events",
            headers={
                **origin,
                "Access-Control-Request-Method": "GET",
                "Access-Control-Request-Headers": "authorization, last-event-id",
            },
        )
        assert asked.status_code == 200
        refused = await client.get("/streams/a/events", headers=origin)
        assert refused.status_code == 401
        assert refused.headers["Access-Control-Allow-Origin"] == "https://chat.example.org"
        read = await client.get("/streams/a/events", headers={**origin, **bearer(stream="a")})
        assert "secret of a" in read.text


async def test_a_token_is_in_no_log(
    start: Serve, queue: WatchedQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Logs go to more people than streams do."""
    caplog.set_level("DEBUG")
    await write(queue, "a")
    served = await start()
    good = bearer(stream="a")
    bad = {"Authorization": good["Authorization"][:-4] + "AAAA"}
    for headers in (good, bad):
        await asyncio.gather(*(get(served, path, headers) for path in PATHS))
    assert good["Authorization"][7:60] not in caplog.text
    assert isinstance(SETTINGS.token_key, SecretStr)
    assert SETTINGS.token_key.get_secret_value() not in caplog.text
