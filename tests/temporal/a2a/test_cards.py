"""Cards: what callers that are known get, signatures, and how long they are good."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.types.a2a_pb2 import AgentCard, AgentSkill, GetExtendedAgentCardRequest
from a2a.utils.errors import UnsupportedOperationError
from a2a.utils.signing import create_signature_verifier
from google.protobuf.json_format import ParseDict
from joserfc import jws
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey
from jwt import PyJWK
from pydantic import SecretStr
from tests.temporal.a2a.agents import card
from tests.temporal.a2a.replicas import TRANSPORTS, Stage
from tests.temporal.a2a.test_access import status, token

from streamq import ConfigurationError, Settings
from streamq.a2a.server import Agent, create_app
from streamq.access import new_ed25519_key, new_secret

_CARD, _JWKS = "/.well-known/agent-card.json", "/.well-known/jwks.json"
_VERSION = {"A2A-Version": "1.0"}


def _extended() -> AgentCard:
    found = card("extended")
    found.skills.append(AgentSkill(id="more", name="More", description="For friends", tags=["x"]))
    return found


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_extended_card_is_for_callers_that_are_known(
    stage: Stage, settings: Settings, transport: str
) -> None:
    """What the author shows to customers only is shown to nobody else."""
    keyed = settings.model_copy(
        update={"token_key": SecretStr(new_secret()), "gateway_anonymous": "read"}
    )
    replica = await stage.replica(settings=keyed, extended_card=_extended())
    wanted = GetExtendedAgentCardRequest()
    async with replica.client(transport, token=token(keyed, actions=["describe"])) as client:
        found = await client.get_extended_agent_card(wanted)
    assert [each.id for each in found.skills] == ["any", "more"]
    assert found.capabilities.extended_agent_card
    assert len(found.supported_interfaces) == 3
    assert "bearer" in found.security_schemes
    async with replica.client(transport) as client:
        assert await status(client.get_extended_agent_card(wanted)) == 401


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_agent_without_an_extended_card_says_so(stage: Stage, transport: str) -> None:
    """The card announces that there is none, and asking all the same is an error."""
    replica = await stage.replica()
    async with replica.client(transport) as client, httpx.AsyncClient() as http:
        public = (await http.get(replica.url + _CARD)).json()
        assert public["capabilities"]["extendedAgentCard"] is False
        client._card.capabilities.extended_agent_card = True  # type: ignore[attr-defined]
        with pytest.raises(UnsupportedOperationError):
            await client.get_extended_agent_card(GetExtendedAgentCardRequest())


async def test_the_extended_card_may_be_kept_by_whoever_got_it(
    stage: Stage, settings: Settings
) -> None:
    """A repeat costs nothing, and no cache in between shows the card to somebody else."""
    keyed = settings.model_copy(update={"token_key": SecretStr(new_secret())})
    replica = await stage.replica(settings=keyed, extended_card=_extended())
    headers = {"Authorization": f"Bearer {token(keyed)}"} | _VERSION
    async with httpx.AsyncClient(base_url=replica.url, headers=headers) as http:
        first = await http.get("/extendedAgentCard")
        tag = {"If-None-Match": first.headers["etag"]}
        again = await http.get("/extendedAgentCard", headers=tag)
        without = await http.get("/extendedAgentCard", headers=tag | {"Authorization": ""})
    assert first.headers["cache-control"] == "private, max-age=300"
    assert first.headers["vary"] == "Authorization"
    assert (again.status_code, again.content) == (304, b"")
    assert without.status_code == 401


def _pem(key: ECKey | OKPKey | RSAKey) -> str:
    return key.as_pem(private=True).decode()


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (_pem(ECKey.generate_key("P-256")), "ES256"),
        (_pem(RSAKey.generate_key(2048)), "RS256"),
        (new_ed25519_key()[0], "EdDSA"),
    ],
)
async def test_a_signed_card_is_verified_with_the_published_key(
    stage: Stage, settings: Settings, key: str, algorithm: str
) -> None:
    """A client can tell that nobody has changed the card, with the SDK and without it."""
    signed = settings.model_copy(update={"a2a_signing_key": SecretStr(key)})
    replica = await stage.replica(settings=signed, extended_card=_extended())
    async with httpx.AsyncClient(base_url=replica.url, headers=_VERSION) as http:
        found, jwks = (await http.get(_CARD)).json(), (await http.get(_JWKS)).json()
    [published] = jwks["keys"]
    assert "d" not in published
    [signature] = found["signatures"]
    header = json.loads(base64.urlsafe_b64decode(signature["protected"] + "=="))
    assert header == {
        "alg": algorithm,
        "typ": "JOSE",
        "kid": published["kid"],
        "jku": replica.url + _JWKS,
    }

    def provide(kid: str | None, jku: str | None) -> PyJWK:
        assert (kid, jku) == (published["kid"], header["jku"])
        return PyJWK(published)

    create_signature_verifier(provide, [algorithm])(ParseDict(found, AgentCard()))
    text = _canonical(found)
    payload = base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
    token = f"{signature['protected']}.{payload}.{signature['signature']}"
    public = JWKRegistry.import_key(published)
    assert jws.deserialize_compact(token, public, algorithms=[algorithm]).payload == text.encode()


def _canonical(found: dict[str, Any]) -> str:
    """Return a card as RFC 8785 has it, for one without numbers and unusual characters."""
    unsigned = {name: value for name, value in found.items() if name != "signatures"}
    return json.dumps(_without_empty(unsigned), sort_keys=True, separators=(",", ":"))


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        found = {name: _without_empty(each) for name, each in value.items()}
        return {name: each for name, each in found.items() if each not in ("", [], {})}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


async def test_while_keys_are_changed_both_have_signed(
    stage: Stage, settings: Settings, tmp_path: Path
) -> None:
    """Clients that know only the old key, or only the new one, verify the card."""
    keys: list[ECKey | OKPKey] = [ECKey.generate_key("P-256"), OKPKey.generate_key("Ed25519")]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [each.as_dict(private=True) for each in keys]}))
    replica = await stage.replica(
        settings=settings.model_copy(update={"a2a_signing_key_file": path})
    )
    async with httpx.AsyncClient(base_url=replica.url) as http:
        found, jwks = (await http.get(_CARD)).json(), (await http.get(_JWKS)).json()
    assert len(found["signatures"]) == len(jwks["keys"]) == 2


def test_a_key_that_cannot_sign_is_refused_without_showing_it(settings: Settings) -> None:
    """A secret would let everybody who verifies a card write one."""
    agent = Agent(card=card("signed"), task_queue="none", activity="write")
    for bad, reason in ((new_secret(), "is a secret"), (new_ed25519_key()[1], "no private key")):
        chosen = settings.model_copy(update={"a2a_signing_key": SecretStr(bad)})
        with pytest.raises(ConfigurationError, match=reason) as raised:
            create_app(agent, settings=chosen)
        assert bad not in str(raised.value)
