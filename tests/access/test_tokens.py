"""Tokens that are refused, and what the others permit."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import OKPKey, RSAKey

from streamq import ConfigurationError, load_settings
from streamq.access import (
    Action,
    InvalidTokenError,
    Issuer,
    Permission,
    Rights,
    StreamMatch,
    TokenVerifier,
    _keys,
    configured_issuers,
    mint_token,
    new_ed25519_key,
    new_secret,
)
from streamq.access._keys import FixedKeys, own_keys, published_keys
from streamq.driver import StreamId

from .forgeries import FORGERIES
from .issuing import (
    AUDIENCE,
    EC,
    ED,
    NAME,
    RSA,
    SECRET,
    claims,
    signed,
)

PUBLIC = [type(key).import_key(key.as_dict(private=False)) for key in (RSA, EC, ED)]


def verifier(**changed: Any) -> TokenVerifier:
    given: dict[str, Any] = {
        "issuer": NAME,
        "audience": AUDIENCE,
        "keys": FixedKeys(PUBLIC),
        "algorithms": frozenset({"RS256", "ES256", "Ed25519"}),
        "tenant": "acme",
    }
    return TokenVerifier([Issuer(**given | changed)])


async def refusal(token: str, **changed: Any) -> str:
    with pytest.raises(InvalidTokenError) as refused:
        await verifier(**changed).verify(token)
    assert token not in refused.value.message or len(token) < 4
    return refused.value.message


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256"), (ED, "Ed25519")])
async def test_a_good_token_gives_its_rights(key: Any, algorithm: str) -> None:
    """Of every kind of key that an issuer may use."""
    rights = await verifier().verify(signed(key=key, algorithm=algorithm))
    assert (rights.tenant, rights.subject, rights.token_id) == ("acme", "ada", "token-1")
    assert rights.expires_at == pytest.approx(time.time() + 600, abs=5)
    assert rights.allow(Action.READ, StreamId("acme", "a"))
    assert rights.allow(Action.DESCRIBE, StreamId("acme", "a"))
    assert not rights.allow(Action.CANCEL, StreamId("acme", "a"))
    assert not rights.allow(Action.READ, StreamId("acme", "b"))
    assert not rights.allow(Action.READ, StreamId("other", "a"))


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forgery_is_refused(forgery: str) -> None:
    """Each of these has opened some server, somewhere."""
    make, part_of_answer = FORGERIES[forgery]
    assert part_of_answer in await refusal(make())


async def test_other_headers_are_ignored() -> None:
    """As RFC 7515 wants it: issuers add fields of their own."""
    assert await verifier().verify(signed(nonce="x", x5t="y"))


async def test_a_secret_of_ones_own_verifies_no_other_algorithm() -> None:
    """And a token by HMAC is accepted where the issuer says so."""
    own = {"keys": FixedKeys([SECRET]), "algorithms": frozenset({"HS256"})}
    assert await verifier(**own).verify(signed(key=SECRET, algorithm="HS256"))
    assert "alg" in await refusal(signed(), **own)


async def test_rotation_overlaps() -> None:
    """Tokens of the old key are valid until that key is removed."""
    new = RSAKey.generate_key(2048, {"kid": "rsa-2"})
    both = FixedKeys([PUBLIC[0], new])
    for key in (RSA, new):
        assert await verifier(keys=both).verify(signed(key=key))
    assert "no key" in await refusal(signed(), keys=FixedKeys([new]))


async def test_keys_without_ids_are_tried() -> None:
    """Small issuers publish no ids."""
    bare = {name: value for name, value in RSA.as_dict(private=False).items() if name != "kid"}
    keys = FixedKeys([RSAKey.import_key(bare)])
    assert await verifier(keys=keys).verify(signed(kid=None))
    assert await verifier(keys=keys).verify(signed())


@pytest.mark.parametrize(
    ("match_type", "match", "covered", "not_covered"),
    [
        ("exact", "a", ["a"], ["a/b", "aa", "A", "", "a/"]),
        ("prefix", "chat-7", ["chat-7", "chat-7/", "chat-7/a/b"], ["chat-70", "chat-70/a", "x"]),
        ("prefix", "chat-7/", ["chat-7", "chat-7/a"], ["chat-70"]),
        (
            "workflow",
            "chat-7",
            ["chat-7/11111111-2222-3333-4444-555555555555/main"],
            [
                "chat-7",
                "chat-7/x",
                "chat-7/activity-11111111-2222-3333-4444-555555555555/main",
                "chat-7/a/11111111-2222-3333-4444-555555555555/main",
                "chat-70/11111111-2222-3333-4444-555555555555/main",
            ],
        ),
        ("all", "", ["a", "b/c"], []),
    ],
)
def test_matches(match_type: Any, match: str, covered: list[str], not_covered: list[str]) -> None:
    """A prefix is one of whole segments: chat-7 does not open chat-70."""
    streams = StreamMatch(match_type, match)
    assert [streams.covers(name) for name in covered] == [True] * len(covered)
    assert [streams.covers(name) for name in not_covered] == [False] * len(not_covered)


@pytest.mark.parametrize(
    ("prefix", "searched"),
    [
        ("", ["chat-7", "one", "w/"]),
        ("c", ["chat-7"]),
        ("chat-7/a", ["chat-7/a"]),
        ("chat-70", []),
        ("one-more", []),
        ("w/1", ["w/1"]),
        ("w-secret", []),
        ("secret", []),
    ],
)
def test_only_what_is_permitted_is_searched(prefix: str, searched: list[str]) -> None:
    """How long a search among others' streams takes would tell what they are called."""
    matches = [
        StreamMatch("exact", "one"),
        StreamMatch("workflow", "w"),
        StreamMatch("prefix", "chat-7/"),
        StreamMatch("prefix", "chat-7/b"),
    ]
    permissions = [Permission(frozenset({Action.LIST}), match) for match in matches]
    permissions.append(Permission(frozenset({Action.READ}), StreamMatch("all")))
    rights = Rights(tenant="acme", permissions=tuple(permissions))
    assert rights.prefixes(Action.LIST, prefix) == searched
    everything = Rights.of_everybody("acme", [Action.LIST])
    assert everything.prefixes(Action.LIST, prefix) == [prefix]


async def test_the_tenant_is_the_issuers() -> None:
    """A token that names another tenant than its issuer may speak for is refused."""
    bound = await verifier().verify(signed(claims(tenant="other")))
    assert bound.tenant == "acme"
    open_to = {"tenant": None, "tenant_claim": "org", "tenants": frozenset({"a", "b"})}
    assert (await verifier(**open_to).verify(signed(claims(org="b")))).tenant == "b"
    for org in ("c", "", None, 5, ["a"], "a/b"):
        assert "tenant" in await refusal(signed(claims(org=org)), **open_to)
    unbound = {"tenant": None, "tenant_claim": "org"}
    assert (await verifier(**unbound).verify(signed(claims(org="c")))).tenant == "c"
    assert "tenant" in await refusal(signed(claims(org="a/b")), **unbound)


async def test_a_lifetime_has_a_ceiling() -> None:
    """A token that was made for years cannot be rotated away."""
    assert "longer" in await refusal(signed(), max_lifetime_seconds=60)
    assert await verifier(max_lifetime_seconds=700).verify(signed())


@pytest.mark.parametrize(
    "name", ["STREAMQ_TOKEN_KEY", "STREAMQ_TOKEN_KEY_FILE", "STREAMQ_TOKEN_ISSUERS"]
)
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_variable_opens_nothing(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that a deployment fails to fill in would let everybody read."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        configured_issuers(load_settings())


@pytest.mark.parametrize("kind", ["ed25519", "secret"])
async def test_a_token_of_ones_own(kind: str, tmp_path: Path) -> None:
    """One call makes it; the gateway needs the public half only."""
    made, public = tmp_path / "key", tmp_path / "public"
    if kind == "secret":
        made.write_text(new_secret())
        public = made
    else:
        private_pem, public_pem = new_ed25519_key()
        made.write_text(private_pem)
        public.write_text(public_pem)
    token = mint_token(
        workflow="chat-7", subject="ada", settings=load_settings(token_key_file=made)
    )
    issuers = configured_issuers(load_settings(token_key_file=public))
    rights = await TokenVerifier(issuers).verify(token)
    assert (rights.tenant, rights.subject) == ("default", "ada")
    name = "chat-7/11111111-2222-3333-4444-555555555555/main"
    assert rights.allow(Action.CANCEL, StreamId("default", name))
    assert not rights.allow(Action.DELETE, StreamId("default", name))
    if kind == "ed25519":
        with pytest.raises(ConfigurationError, match=r"'.*public' .*private"):
            mint_token(every=True, settings=load_settings(token_key_file=public))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "which streams"),
        ({"workflow": None}, "which streams"),
        ({"stream": "a", "every": True}, "which streams"),
        ({"workflow": ""}, "needs a name"),
        ({"stream": "a", "tenant": ""}, "tenant"),
        ({"stream": "a", "subject": ""}, "empty"),
        ({"stream": "a", "actions": []}, "empty"),
        ({"stream": "a", "lifetime": timedelta.max}, "lifetime"),
    ],
)
def test_what_is_empty_by_mistake_opens_nothing(given: dict[str, Any], why: str) -> None:
    """An id or a tenant that an application failed to find must not stand for all of them."""
    with pytest.raises(ConfigurationError, match=why):
        mint_token(**given, settings=load_settings(token_key=new_secret()))


async def test_a_replaced_key_file_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotation needs no restart; a file that is broken for a moment ends no session."""
    monkeypatch.setattr(_keys, "_FRESH_SECONDS", 0.0)
    path = tmp_path / "key"
    path.write_text(new_secret())
    issuers = configured_issuers(load_settings(token_key_file=path))
    old = mint_token(every=True, settings=load_settings(token_key_file=path))
    verifier = TokenVerifier(issuers)
    assert await verifier.verify(old)
    path.write_text("too short")
    assert await verifier.verify(old)
    path.write_text(new_secret() + "longer")
    with pytest.raises(InvalidTokenError):
        await verifier.verify(old)
    assert await verifier.verify(
        mint_token(every=True, settings=load_settings(token_key_file=path))
    )


async def test_a_key_file_that_could_not_be_used_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A right that was missing for a moment leaves no trace on the file itself when it is given."""
    monkeypatch.setattr(_keys, "_FRESH_SECONDS", 0.0)
    path = tmp_path / "key"
    path.write_text(new_secret())
    old = mint_token(every=True, settings=load_settings(token_key_file=path))
    verifier = TokenVerifier(configured_issuers(load_settings(token_key_file=path)))
    secret = new_secret() + "longer"
    path.write_text("short".ljust(len(secret)))
    refused = path.stat()
    for _ in range(3):
        assert await verifier.verify(old)
    warned = [each for each in caplog.messages if "the former keys stay in use" in each]
    assert len(warned) == 1
    path.write_text(secret)
    os.utime(path, ns=(refused.st_atime_ns, refused.st_mtime_ns))
    seen = path.stat()
    assert (seen.st_mtime_ns, seen.st_size, seen.st_ino) == (
        refused.st_mtime_ns,
        refused.st_size,
        refused.st_ino,
    )
    new = mint_token(every=True, settings=load_settings(token_key_file=path))
    assert await verifier.verify(new)
    with pytest.raises(InvalidTokenError):
        await verifier.verify(old)


async def test_a_key_file_that_does_not_answer_delays_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system of another host may hang, and streams have to go on meanwhile."""
    monkeypatch.setattr(_keys, "_FRESH_SECONDS", 0.0)
    path = tmp_path / "key"
    path.write_text(new_secret())
    token = mint_token(every=True, settings=load_settings(token_key_file=path))
    verifier = TokenVerifier(configured_issuers(load_settings(token_key_file=path)))
    assert await verifier.verify(token)
    path.unlink()
    os.mkfifo(path)  # reading it waits for a writer
    verifying = asyncio.create_task(verifier.verify(token))
    turns = 0
    while not verifying.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns > 1
    assert await verifying  # with the former keys
    path.write_text("the thread that reads may end")
    await verifier.aclose()


SHORT_RSA = (
    rsa.generate_private_key(65_537, 1_024)
    .private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    .decode()
)
PUBLIC_TEXT = new_ed25519_key()[1]
PUBLIC_RSA = rsa.generate_private_key(65_537, 2_048).public_key()
DER = PUBLIC_RSA.public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
SSH = PUBLIC_RSA.public_bytes(
    serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
).decode()
WEAK = OKPKey.generate_key("X25519").as_pem(private=True).decode()


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("short", "32 bytes"),
        ("-----BEGIN PRIVATE KEY-----\nnonsense\n-----END PRIVATE KEY-----", "no key"),
        ('{"kty": "RSA"}', "no key"),
        ("{", "no key"),
        ('{"keys": []}', "no key"),
        (WEAK, "weak"),
        (SHORT_RSA, "weak"),
        (json.dumps([ED.as_dict(private=False)]), "no key"),
        (SSH, "no key"),
        ("# of the gateway\n" + SSH, "no key"),
        (base64.b64encode(DER).decode(), "no key"),
        (str(Path(__file__)), "STREAMQ_TOKEN_KEY_FILE"),
    ],
)
def test_a_bad_key_is_named_and_not_shown(key: str, why: str) -> None:
    """A weak key is found when the gateway starts, and not by an attacker."""
    with pytest.raises(ConfigurationError, match=why) as refused:
        configured_issuers(load_settings(token_key=key))
    assert key not in refused.value.message or key in ("{", "short")


@pytest.mark.parametrize(
    "contents",
    [
        PUBLIC_TEXT.encode(),
        b"\xef\xbb\xbf" + PUBLIC_TEXT.encode(),
        b"Bag Attributes\n    friendlyName: gateway\n" + PUBLIC_TEXT.encode(),
        b"\xef\xbb\xbf" + json.dumps(ED.as_dict(private=False)).encode(),
    ],
)
def test_a_public_key_is_one_in_whatever_it_is_wrapped(contents: bytes) -> None:
    """Taken for a secret, everybody who knows the public key could sign with it."""
    assert [type(key) for key in own_keys(contents, "it")] == [OKPKey]


def test_a_public_key_in_binary_is_no_secret(tmp_path: Path) -> None:
    """As above; a file in DER is not one of those that are read."""
    (tmp_path / "key.der").write_bytes(DER)
    with pytest.raises(ConfigurationError, match="no key"):
        configured_issuers(load_settings(token_key_file=tmp_path / "key.der"))


def test_a_private_key_that_is_published_is_not_used() -> None:
    """Everybody can sign with it."""
    entries = [RSA.as_dict(private=True), EC.as_dict(private=False)]
    found = published_keys(json.dumps({"keys": entries}).encode(), "it")
    assert [key.kid for key in found] == ["ec-1"]


GOOD = """
[[issuer]]
issuer = "https://login.example.org/"
audience = "streams"
jwks_file = "jwks.json"
algorithms = ["RS256"]
tenant = "acme"
"""


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (("audience", "#"), "needs audience"),
        (('"RS256"', '"HS256"'), "HS256"),
        (('["RS256"]', "[]"), "algorithms"),
        (('"RS256"', '"none"'), "none"),
        (("tenant =", "#"), "tenant or tenant_claim"),
        (('tenant = "acme"', 'tenant_claim = "org"'), "needs tenants"),
        (('tenant = "acme"', 'tenant = "a/b"'), "a/b"),
        (("jwks_file", "#"), "jwks_url, jwks_file, key_file"),
        (('jwks_file = "jwks.json"', 'jwks_url = "http://login.example.org"'), "https"),
        (('jwks_file = "jwks.json"', 'jwks_url = "file:///etc/passwd"'), "https"),
        (('jwks_file = "jwks.json"', 'jwks_url = "https://a:b@login"'), "password"),
        (('jwks_file = "jwks.json"', 'jwks_file = "nothing.json"'), "cannot be read"),
        (("[[issuer]]", "[issuer]"), "tables"),
        (("[[issuer]]", "= ="), "no TOML"),
        (('tenant = "acme"', 'tenant = "acme"\nrights = 5'), "unknown field 'rights'"),
        (('tenant = "acme"', 'tenant = "acme"\nmax_lifetime_seconds = -1'), "-1"),
        (('tenant = "acme"', 'tenant = "acme"\nmax_lifetime_seconds = inf'), "inf"),
        (('tenant = "acme"', f'tenant = "acme"\nmax_lifetime_seconds = {10**400}'), "at most"),
        (('tenant = "acme"', 'tenant = "acme"' + GOOD), "twice"),
    ],
)
def test_a_bad_file_of_issuers_is_refused(
    changed: tuple[str, str], why: str, tmp_path: Path
) -> None:
    """Every mistake here opens or closes a gateway for everybody."""
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [RSA.as_dict(private=False)]}))
    path = tmp_path / "issuers.toml"
    path.write_text(GOOD)
    assert len(configured_issuers(load_settings(token_issuers=path))) == 1
    path.write_text(GOOD.replace(*changed))
    with pytest.raises(ConfigurationError, match=why):
        configured_issuers(load_settings(token_issuers=path))
