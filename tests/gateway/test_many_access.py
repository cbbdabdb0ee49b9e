"""Rights on a connection of many streams: whose streams are read, by which requests, how long."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from httpx_sse import aconnect_sse
from joserfc import jwt
from joserfc.jwk import OctKey
from tests.access.issuing import signed

from streamq import Settings, load_settings, open_writer
from streamq.access import mint_token, new_secret, revoke_token

from .many import Reader, address
from .served import Serve, WatchedQueue

SETTINGS = load_settings(backend="memory", retry_seconds=0.05, token_key=new_secret())
OWN_PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def settings() -> Settings:
    return SETTINGS


def token(**of: Any) -> str:
    return mint_token(settings=SETTINGS, **of)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def token_of(*details: Mapping[str, Any]) -> str:
    """Return a token with several permissions."""
    assert SETTINGS.token_key is not None
    key = OctKey.import_key(SETTINGS.token_key.get_secret_value())
    claims = jwt.decode(token(every=True), key, algorithms=["HS256"]).claims
    permissions = [{"type": "streamq", **each} for each in details]
    return signed({**claims, "authorization_details": permissions}, key, "HS256")


async def write(queue: WatchedQueue, *names: str, tenant: str = "default") -> None:
    settings = SETTINGS.model_copy(update={"tenant": tenant})
    for name in names:
        async with open_writer(name, queue=queue, settings=settings) as writer:
            await writer.send_chunk(f"secret of {name}")


@pytest.mark.parametrize("wait", ["", "1"])
async def test_a_stream_of_others_among_the_names_is_one_that_is_not_there(
    start: Serve, queue: WatchedQueue, wait: str
) -> None:
    """In every byte: a client must not learn what others call their streams."""
    await write(queue, "mine", "theirs")
    served = await start()
    texts = []
    for name in ("theirs", "nobody"):
        path, headers = address("mine", name, wait=wait), bearer(token(stream="mine"))
        answer = await served.client.get(path, headers=headers)
        assert answer.status_code == 200
        assert "secret of mine" in answer.text
        assert "secret of theirs" not in answer.text
        text = re.sub(r'"expires_in_seconds":[0-9.]+', "", answer.text.replace(name, "NAME"))
        texts.append(sorted(re.sub(r"id: .*\n", "", text).split("\n\n")))
    assert texts[0] == texts[1]


async def test_streams_of_others_are_not_asked_for(start: Serve, queue: WatchedQueue) -> None:
    """What follows costs what a stream costs that does not exist, so it takes as long."""
    await write(queue, "mine", "theirs")
    served = await start()
    asked = []
    for name in ("theirs", "nobody"):
        begin = len(queue.calls)
        for _ in range(3):
            headers = bearer(token(stream="mine"))
            await served.client.get(address("mine", name), headers=headers)
        calls = queue.calls[begin:]
        asked.append([call.method for call in calls])
        assert not any(call.stream and call.stream.name == name for call in calls)
    assert asked[0].count("describe") == asked[1].count("describe")


async def test_a_right_that_is_missing_concerns_its_stream_only(
    start: Serve, queue: WatchedQueue
) -> None:
    """A token that may only describe one stream hears so, and reads the others."""
    await write(queue, "mine", "described")
    served = await start()
    reader = Reader(served)
    headers = bearer(
        token_of(
            {"actions": ["read"], "match": "mine"}, {"actions": ["describe"], "match": "described"}
        )
    )
    async with reader.get(address("described", "mine"), **headers) as source:
        await reader.read(source)
    assert reader.errors == [("described", "insufficient_scope", False)]
    assert reader.values["mine"] == ["secret of mine"]
    answer = await served.client.get(address("described"), headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")


async def test_a_prefix_finds_what_may_be_listed_and_read(
    start: Serve, queue: WatchedQueue
) -> None:
    """Not what may only be listed, or only be read, nor what only looks as if it were below."""
    await write(queue, "p/both", "p/listed", "p/read", "p2/both")
    await write(queue, "p/other", tenant="other")
    served = await start(max_age_seconds=1.0, prefix_seconds=0.05)
    headers = bearer(
        token_of(
            {"actions": ["read", "list"], "match": "p/both"},
            {"actions": ["list"], "match": "p/listed"},
            {"actions": ["read"], "match": "p/read"},
        )
    )
    for prefix in ("p/", "", "p"):
        reader = Reader(served)
        body = {"prefixes": [prefix]}
        async with reader.post(body, **headers) as source:
            await reader.read(source)
        assert {*reader.values} == {*reader.places} == {"p/both"}
    refused = await served.client.get(
        address(prefixes=("p/",)), headers=bearer(token(prefix="p", actions=["read"]))
    )
    assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")


async def test_streams_of_another_tenant_are_not_there(start: Serve, queue: WatchedQueue) -> None:
    """The tenant of the path has to be the token's own, for names and for prefixes."""
    await write(queue, "a", tenant="acme")
    await write(queue, "a", "b")
    served = await start(max_age_seconds=0.3, prefix_seconds=0.05)
    mine = bearer(token(every=True, actions=["read", "list"]))
    answer = await served.client.get(f"/t/acme{address('a')}", headers=mine)
    assert (answer.status_code, answer.json()["error"]) == (404, "stream_not_found")
    answer = await served.client.get(f"/t/acme{address(prefixes=('a',))}", headers=mine)
    assert answer.status_code == 200
    assert '"stream"' not in answer.text
    for path, headers in (
        (f"/t/default{address('a')}", mine),
        (f"/t/acme{address('a')}", bearer(token(every=True, tenant="acme"))),
    ):
        assert "secret of a" in (await served.client.get(path, headers=headers)).text
    posted = await served.client.post("/t/acme/events", json={"streams": ["a"]}, headers=mine)
    assert posted.status_code == 404


async def test_the_connection_ends_with_its_token_and_goes_on_with_the_next(
    start: Serve, queue: WatchedQueue
) -> None:
    """All streams of the page go on at their places with one new token."""
    served = await start()
    reader = Reader(served)
    async with open_writer("a", queue=queue, settings=SETTINGS) as a:
        await a.send_chunk(0)
        await a.flush()
        await write(queue, "b")
        headers = bearer(token(every=True, lifetime=timedelta(seconds=4)))
        async with reader.get(address("a", "b"), **headers) as source:
            events = await reader.read(source)
        assert events[0].event == "token"
        last = events[-1].json()
        assert (last["reason"], last["after"]) == ("token_expired", reader.last_id)
        await a.finish()
        headers = bearer(token(every=True))
        async with reader.get(address("a", "b"), **headers) as source:
            await reader.read(source)
    assert (reader.offsets["a"], reader.offsets["b"]) == ([1, 2], [1, 2])


async def test_the_connection_ends_when_its_token_is_revoked(
    start: Serve, queue: WatchedQueue
) -> None:
    """Whoever has stolen a token reads none of the streams any more."""
    served = await start()
    reader = Reader(served)
    stolen = token(every=True)
    async with (
        open_writer("a", queue=queue, settings=SETTINGS),
        reader.post({"streams": ["a", "b"], "wait": 60}, **bearer(stolen)) as source,
    ):
        events = reader.events(source)
        await anext(events)
        await revoke_token(stolen, queue=queue, settings=SETTINGS)
        rest = await reader.rest(events)
        assert rest[-1].event == "revoked"
    answer = await served.client.post("/events", json={"streams": ["a"]}, headers=bearer(stolen))
    assert answer.status_code == 401


async def test_a_cookie_reads_by_post_from_its_own_page_only(
    start: Serve, queue: WatchedQueue
) -> None:
    """A page with a long list of streams has the cookie; a page of another site must not use it."""
    await write(queue, "a")
    served = await start()
    body, cookie = {"streams": ["a"]}, {"Cookie": f"streamq={token(every=True)}"}

    async def post(**headers: str) -> tuple[int, bool]:
        sent = {**cookie, **{name.replace("_", "-"): value for name, value in headers.items()}}
        answer = await served.client.post("/events", json=body, headers=sent)
        return answer.status_code, "secret" in answer.text

    assert await post(**OWN_PAGE) == (200, True)
    assert await post() == (401, False)
    assert await post(Origin="https://evil.example") == (403, False)
    assert await post(Sec_Fetch_Site="cross-site") == (403, False)
    assert await post(Origin="http://127.0.0.1:1", Sec_Fetch_Site="same-site") == (403, False)


QUOTAS = """
[tenants.followed]
streams = 2

[tenants.connected]
connections = 1

[tenants.slow]
bytes_per_second = 20_000
"""


async def test_quotas_count_streams_and_connections(queue: WatchedQueue, tmp_path: Path) -> None:
    """A tenant gets no more streams by asking for them on one connection."""
    path = tmp_path / "quotas.toml"
    path.write_text(QUOTAS)
    settings = SETTINGS.model_copy(update={"quotas": path})
    async with AsyncExitStack() as stack:
        served = await Serve(stack, queue, settings)(retry_seconds=0.05)
        for tenant in ("followed", "connected"):
            await write(queue, "a", "b", "c", tenant=tenant)
        reader = Reader(served)
        headers = bearer(token(every=True, tenant="followed"))
        async with (
            open_writer(
                "a2", queue=queue, settings=settings.model_copy(update={"tenant": "followed"})
            ) as writer,
            aconnect_sse(served.client, "GET", "/events/a2", headers=headers) as held,
        ):
            await writer.send_chunk(0)
            await writer.flush()
            await anext(aiter(held.aiter_sse()))
            async with reader.get(address("a", "b", "c"), **headers) as source:
                await reader.read(source)  # one place is left: they take it one after the other
        assert {error for _, error, _ in reader.errors} == {"quota"}
        assert all(retryable for *_, retryable in reader.errors)
        assert sorted(reader.ended) == ["a", "b", "c"]
        headers = bearer(token(every=True, tenant="connected"))
        reader = Reader(served)
        async with reader.get(address("a", "b", "c"), **headers) as source:
            await reader.read(source)
        assert sorted(reader.ended) == ["a", "b", "c"]
        async with reader.get(address("a", "x", wait="60"), **headers):
            answer = await served.client.get(address("b"), headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (429, "quota")


async def test_bytes_of_all_streams_count_for_the_tenant(
    queue: WatchedQueue, tmp_path: Path
) -> None:
    """And what is delayed is exact all the same, also over a reconnect."""
    path = tmp_path / "quotas.toml"
    path.write_text(QUOTAS)
    settings = SETTINGS.model_copy(update={"quotas": path, "tenant": "slow"})
    async with AsyncExitStack() as stack:
        served = await Serve(stack, queue, settings)()
        for name in ("a", "b", "c"):
            async with open_writer(name, queue=queue, settings=settings) as writer:
                for i in range(20):
                    await writer.send_chunk("x" * 500)
                    if i % 5 == 4:
                        await writer.flush()
        reader = Reader(served)
        headers = bearer(token(every=True, tenant="slow"))
        while len(reader.ended) < 3:
            async with reader.get(address("a", "b", "c"), **headers) as source:
                await reader.read(source, 15)
    assert {*map(tuple, reader.offsets.values())} == {tuple(range(1, 22))}
