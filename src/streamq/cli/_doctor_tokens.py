"""Asks the issuers of tokens, and a running gateway, whether they work together."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from streamq._errors import StreamqError, error_text
from streamq._loopback import is_loopback
from streamq._settings import Settings
from streamq.driver import Finding
from streamq.opening._open import open_queue

if TYPE_CHECKING:
    import httpx

    from streamq.access import Issuer, Rights

_SECONDS = 5.0
_SKEW_SECONDS = 5.0
_NOTABLE_SKEW_SECONDS = 2.0  # the header Date has whole seconds
_LONG_LIFE = timedelta(days=1)
_STRANGER = "https://stranger.invalid"


async def examine_issuer(issuer: Issuer) -> list[Finding]:
    """Fetch the keys of an issuer that publishes them, and compare its clock with ours."""
    import httpx

    from streamq.access._keys import published_keys
    from streamq.access._remote_keys import RemoteKeys

    subject, keys = f"issuer {issuer.issuer}", issuer.keys
    if not isinstance(keys, RemoteKeys):
        return []
    remedy = "check jwks_url, and the way from here to it"
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, follow_redirects=False) as client:
            answer = await client.get(keys.url)
        if answer.status_code != httpx.codes.OK:
            return [Finding(subject, False, f"{keys.url}: status {answer.status_code}", remedy)]
        usable = published_keys(answer.content, f"the answer of {keys.url}")
        stated = len(json.loads(answer.content)["keys"])
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
        return [Finding(subject, False, f"{keys.url}: {error_text(exc)}", remedy)]
    except StreamqError as exc:
        return [Finding(subject, False, str(exc), "the issuer has to publish keys for signatures")]
    suitable = [key for key in usable for name in issuer.algorithms if _fits(key, name)]
    if not suitable:
        return [
            Finding(
                subject,
                False,
                f"none of its {len(usable)} keys is for {', '.join(sorted(issuer.algorithms))}",
                "correct algorithms in the file of issuers",
            )
        ]
    left_out = stated - len(usable)
    found = Finding(subject, True, f"usable keys: {len(usable)}")
    if left_out:
        found = Finding(
            subject,
            True,
            f"usable keys: {len(usable)}; too weak, secret or for another use: {left_out}",
            "let the issuer publish only public keys for signatures, RSA of 2,048 bits or more",
            is_warning=True,
        )
    return [found, *_clock(f"clock of {issuer.issuer}", answer)]


def _fits(key: object, algorithm: str) -> bool:
    from streamq.access._keys import algorithms_of

    return algorithm in algorithms_of(key)  # type: ignore[arg-type]


def _clock(subject: str, answer: httpx.Response) -> list[Finding]:
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return []
    age = answer.headers.get("Age", "0")
    theirs += float(age) if age.isdigit() else 0.0
    ahead = theirs + 0.5 - time.time()
    detail = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    if abs(ahead) <= _NOTABLE_SKEW_SECONDS:
        return [Finding(subject, True, "the same as this machine's")]
    return [
        Finding(
            subject,
            abs(ahead) <= _SKEW_SECONDS,
            f"{detail}: tokens are refused as issued in the future from {_SKEW_SECONDS:g} s on, "
            "and end early or late",
            "set the clocks of both by NTP",
            is_warning=True,
        )
    ]


async def ask_gateway(url: str, *, needs_tokens: bool) -> list[Finding]:
    """Ask a running gateway as a stranger would, and as a page of another site would."""
    import httpx

    subject = "the gateway itself"
    parts = urlsplit(url)
    is_local = is_loopback(parts.hostname or "")
    found: list[Finding] = []
    if parts.scheme != "https" and not is_local:
        found.append(
            Finding(
                "encryption of its address",
                False,
                f"{url} is not https: tokens and streams pass in clear text",
                "put a proxy with TLS in front, and give browsers its https address",
            )
        )
    try:
        async with httpx.AsyncClient(base_url=url, timeout=_SECONDS) as client:
            ready = await client.get("readyz")
            listed = await client.get("streams")
            foreign = await client.get("streams", headers={"Origin": _STRANGER})
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
        text = error_text(exc)
        return [*found, Finding(subject, False, f"{url}: {text}", "check --url and the proxy")]
    is_ready = ready.status_code == httpx.codes.OK
    told = "ready" if is_ready else f"not ready: status {ready.status_code} {_code(ready)}".strip()
    found.append(Finding(subject, is_ready, told, "" if is_ready else "see the gateway's log"))
    found.append(_stranger(listed.status_code, is_local=is_local, needs_tokens=needs_tokens))
    allowed = foreign.headers.get("Access-Control-Allow-Origin", "")
    if allowed in ("*", _STRANGER):
        found.append(
            Finding(
                "other sites at its address",
                needs_tokens,
                f"a page of {_STRANGER}, or of any other site, may read its answers",
                "let neither STREAMQ_GATEWAY_ORIGINS nor the proxy allow every origin",
                is_warning=True,
            )
        )
    return [*found, *_clock("clock of the gateway", ready)]


def _stranger(status: int, *, is_local: bool, needs_tokens: bool) -> Finding:
    subject = "a stranger at its address"
    if status == 401:
        return Finding(subject, True, "is asked for a token")
    if status != 200:
        return Finding(subject, True, f"does not get the list of streams: status {status}")
    remedy = "configure tokens, or let the proxy authenticate"
    if needs_tokens:
        detail = "gets the list of streams, although these settings ask for tokens"
        return Finding(subject, False, detail, "give the gateway the settings that were examined")
    return Finding(subject, is_local, "gets the list of streams", remedy, is_warning=True)


def _code(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return ""


async def examine_token(settings: Settings, issuers: Sequence[Issuer], token: str) -> list[Finding]:
    """Verify a token as the gateway does, and look whether it was revoked."""
    from streamq.access import TokenVerifier

    subject = "the token"
    verifier = TokenVerifier(issuers)
    try:
        rights = await verifier.verify(token)
    except StreamqError as exc:
        return [
            Finding(
                subject,
                False,
                str(exc),
                "get a new one; `streamq token show` shows its claims if its signature is good",
            )
        ]
    finally:
        await verifier.aclose()
    left = timedelta(seconds=round((rights.expires_at or 0.0) - time.time()))
    permitted = sorted({action.value for each in rights.permissions for action in each.actions})
    detail = (
        f"is good for {left}: subject {rights.subject}, tenant {rights.tenant}, permits "
        f"{', '.join(permitted) or 'nothing'}"
    )
    found = Finding(subject, True, detail)
    if not permitted:
        remedy = "its issuer has to state authorization_details of the type streamq"
        found = Finding(subject, False, detail, remedy)
    elif left > _LONG_LIFE:
        remedy = "let tokens last minutes; a page gets a new one before its token ends"
        found = Finding(subject, True, detail, remedy, is_warning=True)
    return [found, *await _examine_revocation(settings, rights)]


async def _examine_revocation(settings: Settings, rights: Rights) -> list[Finding]:
    from streamq.access._revocation_log import RevocationLog, can_keep_revocations
    from streamq.access._revocations import RevokedTokens, keys_of

    subject, keys = "revocation", keys_of(rights)
    assert keys is not None
    revoked = RevokedTokens()
    try:
        async with open_queue(settings) as queue:
            if not can_keep_revocations(queue):
                detail = f"tokens cannot be revoked on backend {queue.backend}"
                remedy = "give tokens a short lifetime, or choose another backend"
                return [Finding(subject, True, detail, remedy, is_warning=True)]
            await RevocationLog(queue, settings).load(revoked.add)
    except StreamqError as exc:
        return [Finding(subject, False, str(exc), "check the backend: streamq doctor")]
    if revoked.has_token(keys[0]) or revoked.has_subject(keys[1], rights.issued_at):
        return [Finding(subject, False, "the token has been revoked", "get a new token")]
    return [Finding(subject, True, f"not revoked; {len(revoked)} revocations are kept")]
