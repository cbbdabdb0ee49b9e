"""Keys that an issuer publishes: rotation, and servers that are away, slow or hostile."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from streamq.access import InvalidTokenError, Issuer, IssuerUnavailableError, TokenVerifier
from streamq.access import _remote_keys as module
from streamq.access._remote_keys import RemoteKeys

from .issuing import AUDIENCE, EC, NAME, RSA, SECRET, signed

KEYS = {"keys": [RSA.as_dict(private=False)]}
BOTH = {"keys": [RSA.as_dict(private=False), EC.as_dict(private=False)]}


class KeyServer:
    """Answers each request with what the test sets."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[None] = asyncio.Queue()
        self.answer: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]] = _ok(KEYS)
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks.json"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests.put_nowait(None)
            if isinstance(self.answer, bytes):
                writer.write(self.answer)
                await writer.drain()
            else:
                await self.answer(writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def _ok(document: object, status: str = "200 OK") -> bytes:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    server = KeyServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def verifier(server: KeyServer) -> AsyncIterator[TokenVerifier]:
    issuer = Issuer(
        issuer=NAME,
        audience=AUDIENCE,
        keys=RemoteKeys(server.url, issuer=NAME),
        algorithms=frozenset({"RS256", "ES256"}),
        tenant="acme",
    )
    verifier = TokenVerifier([issuer])
    try:
        yield verifier
    finally:
        await verifier.aclose()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FETCH_SECONDS", 0.3)
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.0)


async def test_keys_are_fetched_once(server: KeyServer, verifier: TokenVerifier) -> None:
    """Not with each token, and not once for each of those that come at the same time."""
    await asyncio.gather(*(verifier.verify(signed()) for _ in range(20)))
    await verifier.verify(signed())
    assert server.requests.qsize() == 1


@pytest.mark.usefixtures("impatient")
async def test_a_new_key_is_fetched_when_a_token_names_it(
    server: KeyServer, verifier: TokenVerifier
) -> None:
    """Issuers rotate without telling anybody."""
    await verifier.verify(signed())
    with pytest.raises(InvalidTokenError):
        await verifier.verify(signed(key=EC, algorithm="ES256"))
    server.answer = _ok(BOTH)
    assert await verifier.verify(signed(key=EC, algorithm="ES256"))


async def test_a_flood_of_unknown_keys_does_not_reach_the_issuer(
    server: KeyServer, verifier: TokenVerifier
) -> None:
    """Otherwise anybody could have the gateway load the issuer."""
    await verifier.verify(signed())
    for i in range(50):
        with pytest.raises(InvalidTokenError):
            await verifier.verify(signed(kid=f"invented-{i}"))
    assert server.requests.qsize() == 1


async def _never(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3_600)


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * 65_536)
        await writer.drain()


REDIRECT = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
BAD: dict[str, Any] = {
    "silent": _never,
    "slow": _drip,
    "endless": _endless,
    "error": _ok({}, "500 Internal Server Error"),
    "redirect": REDIRECT,
    "no JSON": _ok(b"<html>"),
    "deep JSON": _ok(b"[" * 200_000),
    "no keys": _ok({"keys": []}),
    "keys are no list": _ok({"keys": {"a": 1}}),
    "thousands of keys": _ok({"keys": KEYS["keys"] * 51}),
    "a secret that everybody can read": _ok({"keys": [SECRET.as_dict(private=True)]}),
    "for encryption": _ok({"keys": [{**KEYS["keys"][0], "use": "enc"}]}),
    "no HTTP": b"hello\r\n\r\n",
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_answer_replaces_no_keys(
    kind: str, server: KeyServer, verifier: TokenVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the first keys it is the issuer that fails, not the token; later nothing fails."""
    good, server.answer = server.answer, BAD[kind]
    with pytest.raises(IssuerUnavailableError, match="try again"):
        await verifier.verify(signed())
    assert NAME in caplog.text
    server.answer = good
    await verifier.verify(signed())
    server.answer = BAD[kind]
    with pytest.raises(InvalidTokenError):
        await verifier.verify(signed(kid="rsa-2"))
    assert await verifier.verify(signed())
    assert "the former ones stay valid" in caplog.text


@pytest.mark.usefixtures("impatient")
async def test_an_issuer_that_is_away(
    server: KeyServer, verifier: TokenVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    """Its tokens are accepted as soon as it is back."""
    caplog.set_level(logging.WARNING)
    await server.stop()
    with pytest.raises(IssuerUnavailableError):
        await verifier.verify(signed())
    await server.start()
    assert await verifier.verify(signed())


@pytest.mark.usefixtures("impatient")
async def test_old_keys_are_renewed_beside(
    server: KeyServer, verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request waits for an issuer whose keys are only old."""
    await verifier.verify(signed())
    monkeypatch.setattr(module, "_FRESH_SECONDS", -1.0)
    server.answer = _never
    assert await verifier.verify(signed())
    for _ in range(2):
        await server.requests.get()


async def test_an_answer_is_not_expanded(server: KeyServer, verifier: TokenVerifier) -> None:
    """A small one may expand to any size, before the bound is reached."""
    body = gzip.compress(json.dumps(KEYS).encode())
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    server.answer = head.encode() + body
    with pytest.raises(IssuerUnavailableError):
        await verifier.verify(signed())


async def test_closing_ends_a_fetch(server: KeyServer, verifier: TokenVerifier) -> None:
    """A gateway that stops does not wait for an issuer."""
    server.answer = _never
    waiting = asyncio.create_task(verifier.verify(signed()))
    await server.requests.get()
    await verifier.aclose()
    with pytest.raises(IssuerUnavailableError):
        await waiting
