"""Tries every attack of the list: each answer is that of the list, and nothing is shown."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import KeySet, OctKey
from starlette.requests import Request
from tests.access.forgeries import FORGERIES
from tests.access.issuing import AUDIENCE, EC, ED, NAME, RSA, signed

from streamq import Settings, load_settings, open_writer
from streamq.access import (
    Action,
    Permission,
    Rights,
    StreamMatch,
    TicketOffice,
    TokenVerifier,
    configured_issuers,
    mint_token,
    new_secret,
    permit,
)
from streamq.driver import StreamId

from .attack import BY_APPLICATION, PLACEHOLDERS, Attack
from .attacks import ATTACKS, DOCUMENT, renewed
from .served import Serve, Served, WatchedQueue

STREAMS = [("default", "mine"), ("default", "mine/1"), ("default", "mine2"), ("default", "theirs")]
STREAMS += [("other", "mine"), ("other", "theirs"), ("acme", "a")]
ROWS = sum(map(len, ATTACKS.values()))
TICKET_KEY = new_secret()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("issuers")
    keys = KeySet([RSA, EC, ED])
    (folder / "keys.json").write_text(json.dumps(keys.as_dict(private=False)))
    (folder / "issuers.toml").write_text(
        f'[[issuer]]\nissuer = "{NAME}"\naudience = "{AUDIENCE}"\njwks_file = "keys.json"\n'
        'algorithms = ["RS256", "ES256", "Ed25519"]\ntenant = "acme"\n'
    )
    return load_settings(
        backend="memory",
        retry_seconds=0.05,
        token_key=new_secret(),
        token_issuers=folder / "issuers.toml",
        gateway_ticket_key=TICKET_KEY,
        gateway_hosts="streams.example.org",
        gateway_origins="https://chat.example.org",
    )


@pytest.fixture(scope="module")
def given(settings: Settings) -> dict[str, str]:
    """Return what the placeholders stand for."""

    def token(*actions: str, **of: Any) -> str:
        return mint_token(prefix="mine", actions=actions, settings=settings, **of)

    stream = StreamId("default", "mine")
    rights = Rights(
        tenant="default",
        permissions=(Permission(frozenset({Action.READ}), StreamMatch("all")),),
        subject="ada",
        expires_at=time.time() + 900,
    )
    values = (
        token("read", "list"),
        token("describe"),
        token("cancel"),
        _expired(settings),
        TicketOffice(TICKET_KEY).issue(rights, stream)[0],
        TicketOffice(TICKET_KEY, lambda: time.time() - 61).issue(rights, stream)[0],
        TicketOffice(new_secret()).issue(rights, stream)[0],
    )
    forgeries = {f"<forgery {name}>": make() for name, (make, _) in FORGERIES.items()}
    return dict(zip(PLACEHOLDERS, values, strict=True)) | forgeries


def _expired(settings: Settings) -> str:
    """Return a token that was good until a second ago."""
    assert settings.token_key is not None
    key = OctKey.import_key(settings.token_key.get_secret_value())
    given = jwt.decode(mint_token(prefix="mine", settings=settings), key, algorithms=["HS256"])
    now = int(time.time())
    return signed({**given.claims, "iat": now - 900, "exp": now - 1}, key, "HS256")


@pytest.fixture
async def attacked(queue: WatchedQueue, settings: Settings) -> AsyncIterator[Served]:
    for tenant, name in STREAMS:
        changed = settings.model_copy(update={"tenant": tenant})
        async with open_writer(name, queue=queue, settings=changed) as writer:
            await writer.send_chunk("the secret")
    async with AsyncExitStack() as stack:
        yield await Serve(stack, queue, settings)(
            trusted_proxies=("127.0.0.1",), max_age_seconds=1.0
        )


@pytest.fixture
async def by_application(
    attacked: Served, queue: WatchedQueue, settings: Settings
) -> AsyncIterator[Served]:
    """Serve the same streams without tokens."""

    def authorize(request: Request, _stream: StreamId | None) -> bool | Permission:
        match request.headers.get("x-user"):
            case "trouble":
                raise RuntimeError("the secret")
            case "ada":
                return permit("read", "list", prefix="mine")
        return False

    changed = settings.model_copy(update={"token_key": None, "token_issuers": None})
    async with AsyncExitStack() as stack:
        yield await Serve(stack, queue, changed)(authorize=authorize, max_age_seconds=1.0)


@pytest.mark.parametrize("theme", ATTACKS)
async def test_each_attack_gets_the_answer_of_the_table(
    theme: str,
    attacked: Served,
    by_application: Served,
    given: dict[str, str],
    queue: WatchedQueue,
) -> None:
    """And afterwards every stream is there."""
    wrong = []
    for attack in ATTACKS[theme]:
        served = by_application if theme == BY_APPLICATION else attacked
        seen = await _try(attack, served, given)
        if seen != attack.answer:
            wrong.append((attack.what, seen, attack.answer))
    assert wrong == []
    for tenant, name in STREAMS:
        assert (await queue.describe(StreamId(tenant, name))).records


async def _try(attack: Attack, served: Served, given: dict[str, str]) -> tuple[int, str]:
    def filled(text: str) -> str:
        for placeholder, value in given.items():
            text = text.replace(placeholder, value)
        return text

    method, _, path = attack.request.partition(" ")
    headers = {name: filled(value) for name, value in attack.headers.items()}
    answer = await served.client.request(
        method, filled(path), headers=headers, content=filled(attack.body)
    )
    assert "the secret" not in answer.text, attack.what
    assert "Set-Cookie" not in answer.headers, attack.what
    for value in given.values():
        assert len(value) < 20 or value not in answer.text + str(answer.headers), attack.what
    if answer.headers["Content-Type"].startswith("text/event-stream"):
        codes = re.findall(r'"error":"(\w+)"', answer.text)
        assert codes or '"stream":' not in answer.text, attack.what
        return answer.status_code, codes[0] if codes else "nothing of it"
    if answer.status_code == 200:
        nothing: list[object] = []
        empty = ({"streams": nothing, "is_complete": True}, {"records": nothing})
        assert answer.json() in empty, attack.what
        return 200, "an empty list"
    return answer.status_code, answer.json()["error"]


async def test_the_same_requests_work_with_the_right_token(
    attacked: Served, given: dict[str, str], settings: Settings
) -> None:
    """Otherwise the table would say nothing."""
    earlier = TokenVerifier(configured_issuers(settings), lambda: time.time() - 600)
    assert (await earlier.verify(given["<expired>"])).subject == "anonymous"
    token, ticket = given["<mine>"], given["<ticket>"]
    header = {"Authorization": f"Bearer {token}"}
    cookie = {"Cookie": f"streamq={token}", "Sec-Fetch-Site": "same-origin"}
    for path in ("/events/mine", "/story/mine%2F1", "/t/default/events/mine"):
        for headers in (header, cookie):
            answer = await attacked.client.get(path, headers=headers)
            assert "the secret" in answer.text
    assert "the secret" in (await attacked.get(f"/events/mine?ticket={ticket}")).text
    issued = {"Authorization": f"Bearer {signed()}"}
    assert "the secret" in (await attacked.client.get("/events/a", headers=issued)).text
    assert len((await attacked.client.get("/streams", headers=header)).json()["streams"]) == 2
    for query in ("stream=mine", "prefix=mine"):
        for headers in (header, cookie):
            answer = await attacked.client.get(f"/events?{query}", headers=headers)
            assert "the secret" in answer.text
            body = {query.replace("=mine", "s").replace("prefixs", "prefixes"): ["mine"]}
            answer = await attacked.client.post("/events", json=body, headers=headers)
            assert "the secret" in answer.text


async def test_the_same_requests_work_where_the_application_permits_them(
    by_application: Served,
) -> None:
    """Otherwise its theme would say nothing."""
    for path in ("/events/mine", "/story/mine%2F1", "/t/default/events/mine"):
        answer = await by_application.client.get(path, headers={"X-User": "ada"})
        assert "the secret" in answer.text
    listed = (await by_application.client.get("/streams", headers={"X-User": "ada"})).json()
    assert [each["name"] for each in listed["streams"]] == ["mine/1", "mine"]


async def test_another_tenant_is_like_one_that_nobody_has(
    attacked: Served, given: dict[str, str]
) -> None:
    """In status, body and headers, by every route: the answer must not say that it is there."""
    compared = 0
    for attack in ATTACKS["A tenant in the path that is not the token's"]:
        method, _, path = attack.request.partition(" ")
        if not path.startswith("/t/other/"):
            continue
        headers = {"Authorization": f"Bearer {given['<mine>']}"}
        theirs, nobodys = [
            await attacked.client.request(method, path.replace("other", tenant), headers=headers)
            for tenant in ("other", "nobody")
        ]
        assert theirs.status_code == nobodys.status_code
        assert theirs.text.replace("other/", "nobody/") == nobodys.text
        ignored = ("date", "content-length")
        heads = [
            {name: value for name, value in each.headers.items() if name not in ignored}
            for each in (theirs, nobodys)
        ]
        assert heads[0] == heads[1]
        compared += 1
    assert compared >= 20


def test_the_table_is_in_the_document() -> None:
    """Run python -m tests.gateway.attacks if it is not."""
    assert DOCUMENT.read_text() == renewed(DOCUMENT.read_text())
    assert ROWS >= 80
