"""Forges tokens: each is refused by a verifier, and by a gateway."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .issuing import (
    AUDIENCE,
    BARE_RSA,
    ED,
    NAME,
    OTHER,
    READ_A,
    RSA,
    claims,
    forged,
    part,
    signed,
)

HEADER = {"alg": "RS256", "typ": "at+jwt", "kid": "rsa-1"}


def unsigned(payload: dict[str, Any]) -> str:
    return ".".join(signed(payload).split(".")[:2]) + "."


def changed_payload(**changed: Any) -> str:
    head, _, signature = signed().split(".")
    return f"{head}.{part(claims(**changed))}.{signature}"


def changed_header(**changed: Any) -> str:
    _, payload, signature = signed().split(".")
    return f"{part(HEADER | changed)}.{payload}.{signature}"


PEM = type(RSA).import_key(RSA.as_dict(private=False)).as_pem(private=False)

# What is tried, the token, and a part of the answer.
FORGERIES: dict[str, tuple[Callable[[], str], str]] = {
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
