"""Issues tokens as an issuer would, and as somebody would who forges one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

NAME = "https://login.example.org/"
AUDIENCE = "https://streams.example.org"
READ_A = {"type": "streamq", "actions": ["read"], "match_type": "exact", "match": "a"}

RSA = RSAKey.generate_key(2048, {"kid": "rsa-1", "use": "sig", "alg": "RS256"})
EC = ECKey.generate_key("P-256", {"kid": "ec-1", "use": "sig"})
ED = OKPKey.generate_key("Ed25519", {"kid": "ed-1"})
BARE_RSA = RSAKey.import_key(RSA.raw_value, {"kid": "rsa-1"})
OTHER = RSAKey.generate_key(2048, {"kid": "rsa-1"})
SECRET = OctKey.import_key("s" * 40, {"kid": "secret-1"})


def claims(**changed: Any) -> dict[str, Any]:
    """Return the claims of a good token; ``None`` leaves one out."""
    now = int(time.time())
    found = {
        "iss": NAME,
        "aud": AUDIENCE,
        "sub": "ada",
        "client_id": "chat",
        "jti": "token-1",
        "iat": now,
        "exp": now + 600,
        "authorization_details": [READ_A],
        **changed,
    }
    return {name: value for name, value in found.items() if value is not None}


def signed(
    payload: dict[str, Any] | None = None,
    key: Key = RSA,
    algorithm: str = "RS256",
    **header: Any,
) -> str:
    """Return a token; header fields that are ``None`` are left out."""
    found = {"alg": algorithm, "typ": "at+jwt", "kid": key.kid, **header}
    found = {name: value for name, value in found.items() if value is not None}
    return jwt.encode(
        found,
        claims() if payload is None else payload,
        key,
        algorithms=[algorithm],
        registry=JWSRegistry(algorithms=[algorithm], strict_check_header=False),
        default_type=None,
    )


def part(data: object) -> str:
    """Return an encoded part of a token."""
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: object, payload: object, secret: bytes | None = None) -> str:
    """Return a token of these parts, signed by HMAC with a secret, or with nothing."""
    text = f"{part(header)}.{part(payload)}"
    mac = b"" if secret is None else hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{part(mac)}"
