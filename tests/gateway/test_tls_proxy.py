"""nginx with TLS, HTTP/2, a path of its own and compression: events, cookies, hosts, origins."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
import trustme
from httpx_sse import aconnect_sse

from streamq import Settings, load_settings, open_writer
from streamq.access import mint_token, new_secret

from .browsers import running_browser
from .proxies import free_port, start_nginx
from .served import Serve, WatchedQueue

NAME = "streams.example.org"
ORIGIN = "https://chat.example.org"
SETTINGS = load_settings(
    backend="memory",
    retry_seconds=0.05,
    token_key=new_secret(),
    gateway_hosts=NAME,
    gateway_origins=ORIGIN,
)
_SERVER = """
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {directory}/chain.pem; ssl_certificate_key {directory}/key.pem;
    location /in/it/ {{
      proxy_pass {target}/; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
    }}
  }}
"""
OWN = {"Host": NAME, "Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def settings() -> Settings:
    return SETTINGS


@pytest.fixture
def token() -> dict[str, str]:
    return {"Authorization": f"Bearer {mint_token(settings=SETTINGS, stream='a')}"}


@pytest.fixture
async def proxy(start: Serve, tmp_path: Path) -> AsyncIterator[tuple[int, ssl.SSLContext]]:
    """Yield the port of the proxy, and what verifies its certificate."""
    authority, verifying = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(verifying)
    certificate = authority.issue_cert(NAME)
    certificate.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    for part in certificate.cert_chain_pems:
        part.write_to_path(str(tmp_path / "chain.pem"), append=True)
    served = await start(heartbeat_seconds=60, trusted_proxies=("127.0.0.1",), retry_seconds=0.1)
    target, port = served.server.url.rstrip("/"), free_port()
    server = _SERVER.format(port=port, directory=tmp_path, target=target)
    async with AsyncExitStack() as stack:
        await start_nginx(stack, tmp_path, port, server)
        yield port, verifying


@pytest.fixture
async def client(proxy: tuple[int, ssl.SSLContext]) -> AsyncIterator[httpx.AsyncClient]:
    port, verifying = proxy
    base = f"https://127.0.0.1:{port}/in/it/"
    async with httpx.AsyncClient(base_url=base, verify=verifying, http2=True, timeout=30) as client:
        client.headers["Host"] = NAME

        async def name_the_server(request: httpx.Request) -> None:
            request.extensions["sni_hostname"] = NAME

        client.event_hooks["request"].append(name_the_server)
        yield client


async def test_events_come_one_by_one_to_a_cookie(
    client: httpx.AsyncClient, queue: WatchedQueue, token: dict[str, str]
) -> None:
    """The cookie is for the path of the proxy, which the gateway does not know."""
    page = await client.get("page/main.js", headers={"Accept-Encoding": "gzip"})
    assert (page.http_version, page.headers["content-encoding"]) == ("HTTP/2", "gzip")
    begun = await client.post("session", headers=token)
    assert begun.status_code == 200, begun.text
    assert [(each.name, each.path, each.secure) for each in client.cookies.jar] == [
        ("__Secure-streamq", "/in/it", True)
    ]
    async with (
        asyncio.timeout(60),
        open_writer("a", queue=queue) as writer,
        aconnect_sse(client, "GET", "events/a?wait=30", headers=OWN) as source,
    ):
        assert source.response.http_version == "HTTP/2"
        events = source.aiter_sse()
        assert (await anext(events)).event == "token"
        for i in range(5):
            await writer.send_chunk(f"token {i}")
            event = await anext(events)  # the next one is written only after this
            assert event.json()["value"] == f"token {i}"
        place = event.id
    missed = await client.get("events/a", headers={**OWN, "Last-Event-ID": place})
    assert "event: end" in missed.text
    assert "event: chunk" not in missed.text


async def test_hosts_and_origins_hold_behind_the_proxy(
    client: httpx.AsyncClient, queue: WatchedQueue, token: dict[str, str]
) -> None:
    """The proxy passes on what the browser says."""
    async with open_writer("a", queue=queue) as writer:
        await writer.send_chunk("secret")
    await client.post("session", headers=token)
    cross = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    for headers, status in (
        (OWN, 200),
        ({"Host": NAME}, 401),
        ({**OWN, "Host": "evil.example"}, 421),
        ({"Host": NAME, "Origin": "https://evil.example"}, 403),
        ({"Host": NAME, **cross}, 403),
        ({"Host": NAME, "Origin": ORIGIN, "Sec-Fetch-Site": "same-site"}, 200),
    ):
        answer = await client.get("story/a", headers=headers)
        assert (answer.status_code, "secret" in answer.text) == (status, status == 200), headers
    assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert answer.headers["Access-Control-Allow-Credentials"] == "true"
    asks = {"Origin": ORIGIN, "Access-Control-Request-Headers": "authorization, last-event-id"}
    for method in ("GET", "POST", "DELETE"):
        asked = {**asks, "Access-Control-Request-Method": method}
        allowed = await client.options("session", headers=asked)
        assert allowed.status_code == 200
        assert method in allowed.headers["Access-Control-Allow-Methods"]
    refused = await client.get("story/b")
    assert f'resource_metadata="https://{NAME}/' in refused.headers["WWW-Authenticate"]
    for name, value in (
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
        ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ):
        assert refused.headers[name] == value


_FOLLOW = """
window.seen = [];
fetch("session", {method: "POST", headers: {Authorization: "TOKEN"}}).then((answer) => {
  window.begun = answer.status;
  const source = window.source = new EventSource("events/a?wait=30");
  source.addEventListener("chunk", (event) => window.seen.push(JSON.parse(event.data).value));
  source.addEventListener("end", () => source.close());
});
"""


async def test_a_browser_reads_through_the_proxy(
    proxy: tuple[int, ssl.SSLContext],
    queue: WatchedQueue,
    token: dict[str, str],
    tmp_path: Path,
) -> None:
    """Chromium keeps a cookie of this name only if it comes by HTTPS and is Secure."""
    port, _ = proxy
    arguments = ("--ignore-certificate-errors", f"--host-resolver-rules=MAP {NAME} 127.0.0.1")
    async with (
        running_browser(tmp_path / "profile", *arguments) as browser,
        open_writer("a", queue=queue) as writer,
    ):
        await browser.open(f"https://{NAME}:{port}/in/it/page.css")
        await browser.until(
            "location.pathname === '/in/it/page.css' && document.readyState === 'complete'"
        )
        await browser.value(_FOLLOW.replace("TOKEN", token["Authorization"]))
        await browser.until("window.begun === 200")
        for i in range(3):
            await writer.send_chunk(i)
            await browser.until(f"window.seen.length === {i + 1}")
