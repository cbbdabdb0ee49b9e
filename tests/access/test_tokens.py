"""Tokens that are refused, and what the others permit."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from collections.abc import Callable
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
    configured_issuers,
    mint_token,
    new_ed25519_key,
    new_secret,
)
from streamq.access._keys import FixedKeys, own_keys, published_keys
from streamq.driver import StreamId

from .issuing import (
    AUDIENCE,
    BARE_RSA,
    EC,
    ED,
    NAME,
    OTHER,
    READ_A,
    RSA,
    SECRET,
    claims,
    forged,
    part,
    signed,
)

PUBLIC = [type(key).import_key(key.as_dict(private=False)) for key in (RSA, EC, ED)]
HEADER = {"alg": "RS256", "typ": "at+jwt", "kid": "rsa-1"}


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


def unsigned(payload: dict[str, Any]) -> str:
    return ".".join(signed(payload).split(".")[:2]) + "."


def changed_payload(**changed: Any) -> str:
    head, _, signature = signed().split(".")
    return f"{head}.{part(claims(**changed))}.{signature}"


def changed_header(**changed: Any) -> str:
    _, payload, signature = signed().split(".")
    return f"{part(HEADER | changed)}.{payload}.{signature}"


PEM = PUBLIC[0].as_pem(private=False)
NOW = int(time.time())

# What is tried, the token, and a part of the answer.
ATTACKS: dict[str, tuple[Callable[[], str], str]] = {
    "no signature": (lambda: unsigned(claims()), "no key"),
    "algorithm none": (lambda: forged({"alg": "none", "typ": "at+jwt"}, claims()), "alg"),
    "algorithm None": (lambda: forged({"alg": "None", "typ": "at+jwt"}, claims()), "alg"),
    "algorithm nOnE": (lambda: forged({"alg": "nOnE", "typ": "at+jwt"}, claims()), "alg"),
    "no algorithm": (lambda: forged({"typ": "at+jwt"}, claims()), "alg"),
    "algorithm is a list": (lambda: forged({"alg": ["RS256"], "typ": "at+jwt"}, claims()), "alg"),
    "public key as a secret": (
        lambda: forged({"alg": "HS256", "typ": "at+jwt", "kid": "rsa-1"}, claims(), PEM),
        "alg",
    ),
    "public key as a secret, algorithm of the key": (
        lambda: forged(HEADER, claims(), PEM),
        "no key",
    ),
    "algorithm that is not allowed": (lambda: signed(key=BARE_RSA, algorithm="PS256"), "alg"),
    "algorithm of another key": (lambda: changed_header(alg="ES256", kid="ec-1"), "no key"),
    "key of another issuer": (lambda: signed(key=OTHER), "no key"),
    "unknown key id": (lambda: signed(kid="nobody"), "no key"),
    "key id is a path": (lambda: signed(kid="../../../../dev/null"), "no key"),
    "key id is SQL": (lambda: signed(kid="x' UNION SELECT 'a"), "no key"),
    "key id is an address": (lambda: signed(kid="https://evil.example/jwks"), "no key"),
    "key id is no text": (lambda: changed_header(kid={"a": 1}), "kid"),
    "key in the header": (
        lambda: signed(key=ED, algorithm="Ed25519", kid="rsa-1", jwk=ED.as_dict(private=False)),
        "no key",
    ),
    "address of keys in the header": (
        lambda: signed(key=OTHER, kid="rsa-1", jku="https://evil.example/jwks"),
        "no key",
    ),
    "certificate in the header": (lambda: signed(key=OTHER, x5u="https://evil.example"), "no key"),
    "unknown critical header": (lambda: signed(crit=["b64"], b64=False), "malformed"),
    "critical header that is missing": (lambda: changed_header(crit=["exp"]), "malformed"),
    "empty list of critical headers": (lambda: changed_header(crit=[]), ""),
    "an id token": (lambda: signed(typ="JWT"), "typ"),
    "no type": (lambda: signed(typ=None), "typ"),
    "type is a list": (lambda: changed_header(typ=["at+jwt"]), "typ"),
    "other issuer": (lambda: signed(claims(iss="https://evil.example/")), "issuer"),
    "issuer without its slash": (lambda: signed(claims(iss=NAME.rstrip("/"))), "issuer"),
    "issuer in capitals": (lambda: signed(claims(iss=NAME.upper())), "issuer"),
    "issuer is a list": (lambda: signed(claims(iss=[NAME])), "issuer"),
    "no issuer": (lambda: signed(claims(iss=None)), "issuer"),
    "changed subject": (lambda: changed_payload(sub="admin"), "no key"),
    "changed rights": (
        lambda: changed_payload(authorization_details=[READ_A | {"match": "b"}]),
        "no key",
    ),
    "expired by a second": (lambda: signed(claims(exp=int(time.time()) - 1)), "expired"),
    "no end": (lambda: signed(claims(exp=None)), "exp"),
    "end is text": (lambda: signed(claims(exp="9999999999")), "exp"),
    "end beyond all years": (lambda: signed(claims(exp=10**400)), "exp"),
    "end in a million years": (lambda: signed(claims(exp=10**13)), "exp"),
    "end is infinite": (lambda: signed(claims(exp=float("inf"))), "exp"),
    "end is no number": (lambda: signed(claims(exp=float("nan"))), "exp"),
    "end is true": (lambda: signed(claims(exp=True)), "exp"),
    "not valid yet": (lambda: signed(claims(nbf=int(time.time()) + 60)), "nbf"),
    "beginning is text": (lambda: signed(claims(nbf="now")), "nbf"),
    "issued in the future": (lambda: signed(claims(iat=int(time.time()) + 60)), "future"),
    "no moment of issue": (lambda: signed(claims(iat=None)), "iat"),
    "other audience": (lambda: signed(claims(aud="https://other.example.org")), "aud"),
    "audience that contains ours": (lambda: signed(claims(aud=AUDIENCE + ".evil.example")), "aud"),
    "list of other audiences": (lambda: signed(claims(aud=["a", AUDIENCE + "/"])), "aud"),
    "no audience": (lambda: signed(claims(aud=None)), "aud"),
    "audience is an object": (lambda: signed(claims(aud={AUDIENCE: 1})), "aud"),
    "no subject": (lambda: signed(claims(sub=None)), "sub"),
    "empty subject": (lambda: signed(claims(sub="")), "sub"),
    "no id": (lambda: signed(claims(jti=None)), "jti"),
    "id is a number": (lambda: signed(claims(jti=5)), "jti"),
    "rights are an object": (lambda: signed(claims(authorization_details={})), "no list"),
    "rights without a type": (lambda: signed(claims(authorization_details=[{}])), "type"),
    "rights without actions": (
        lambda: signed(claims(authorization_details=[{"type": "streamq", "match": "a"}])),
        "no actions",
    ),
    "unknown action": (
        lambda: signed(claims(authorization_details=[READ_A | {"actions": ["*"]}])),
        "cannot be used",
    ),
    "unknown way to match": (
        lambda: signed(claims(authorization_details=[READ_A | {"match_type": "regex"}])),
        "match_type",
    ),
    "narrowing that is not known": (
        lambda: signed(claims(authorization_details=[READ_A | {"until": 5}])),
        "unknown field",
    ),
    "one bad detail among good ones": (
        lambda: signed(claims(authorization_details=[READ_A, READ_A | {"actions": []}])),
        "no actions",
    ),
    "empty prefix": (
        lambda: signed(
            claims(authorization_details=[READ_A | {"match_type": "prefix", "match": "/"}])
        ),
        "needs a name",
    ),
    "a thousand rights": (lambda: signed(claims(authorization_details=[READ_A] * 101)), "larger"),
    "huge": (lambda: signed(claims(note="x" * 9_000)), "larger"),
    "two parts": (lambda: "a.b", "three parts"),
    "five parts, encrypted": (lambda: "a.b.c.d.e", "three parts"),
    "empty": (lambda: "", "three parts"),
    "no base64": (lambda: "!!.!!.!!", "malformed"),
    "header is no object": (lambda: forged([], claims()), "malformed"),
    "claims are no object": (lambda: forged(HEADER, "x"), "malformed"),
    "claims are deep": (lambda: forged(HEADER, b"[" * 4_000), "malformed"),
    "claims are no UTF-8": (lambda: forged(HEADER, b"\xff\xfe"), "malformed"),
    "line breaks": (lambda: signed().replace(".", ".\n", 1), "malformed"),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_is_refused(attack: str) -> None:
    """Each of these has opened some server, somewhere."""
    make, part_of_answer = ATTACKS[attack]
    token = make()
    if attack == "empty list of critical headers":
        assert await refusal(token)
        return
    assert part_of_answer in await refusal(token)


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
        with pytest.raises(ConfigurationError, match="public"):
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


async def test_a_replaced_key_file_is_read_again(tmp_path: Path) -> None:
    """Rotation needs no restart; a file that is broken for a moment ends no session."""
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


async def test_a_key_file_that_does_not_answer_delays_nobody_else(tmp_path: Path) -> None:
    """A file system of another host may hang, and streams have to go on meanwhile."""
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
