"""Pages of other sites: DNS rebinding, foreign origins, requests that are no CORS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from streamq import ConfigurationError, Settings, open_writer
from streamq.access import mint_token, new_secret
from streamq.gateway import create_app, serve

from .served import Serve, WatchedQueue

ROUTES = ["/", "/page/main.js", "/page.css", "/streams", "/streams/s", "/streams/s/events"]
ROUTES += ["/healthz", "/readyz", "/nothing"]
CROSS = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def client(stack: AsyncExitStack, app: Starlette) -> httpx.AsyncClient:
    server = await stack.enter_async_context(serve(app))
    return await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, timeout=10))


async def sealed(queue: WatchedQueue) -> None:
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("secret")


async def test_a_rebound_name_reads_nothing(start: Serve, queue: WatchedQueue) -> None:
    """Any page that a user visits could read what the user's machine streams."""
    await sealed(queue)
    served = await start()
    port = served.server.port
    bad = ["evil.example", f"evil.example:{port}", "localhost.evil.example", "127.0.0.1.nip.io"]
    bad += ["EVIL.example.", "xn--80ak6aa92e.com", "localhost@evil.example", "a b", "[::1].evil"]
    bad += ["testserver.evil.example", "evil.example%0a", "[evil]", "http://localhost", "a,b"]
    bad += ["local.evil.example", "evilhome.arpa", "internal.example"]
    for host in bad:
        for path in ROUTES if host == bad[0] else ["/streams/s/events"]:
            response = await served.client.get(path, headers={"Host": host})
            assert response.status_code == 421, (host, path)
            assert response.json()["error"] == "host_not_allowed"
            assert "STREAMQ_GATEWAY_HOSTS" in response.json()["message"]
            assert "secret" not in response.text
    good = [f"127.0.0.1:{port}", "localhost", f"LOCALHOST:{port}", "a.localhost", "127.8.9.1"]
    good += [f"[::1]:{port}", "[::1]", "localhost.", "192.168.1.20:8330", "[fe80::1]:1"]
    good += ["streamq", "testserver", "gateway.test", "streamq.ns.svc.cluster.local:8330"]
    good += ["host.docker.internal", "nas.home.arpa", "Box.LOCAL."]  # nobody can register these
    for host in good:
        response = await served.client.get("/streams/s/events", headers={"Host": host})
        assert response.status_code == 200, host


async def test_a_configured_host_is_served_behind_a_proxy(
    queue: WatchedQueue, settings: Settings, stack: AsyncExitStack
) -> None:
    """Proxies pass on the name that the user typed."""
    named = settings.model_copy(
        update={"gateway_hosts": "Chat.example, *.apps.example", "gateway_host": "inside.example"}
    )
    http = await client(stack, create_app(queue, named))
    for host, status in (
        ("chat.example", 200),
        ("CHAT.example:443", 200),
        ("a.b.apps.example", 200),
        ("inside.example", 200),
        ("apps.example", 421),
        ("evil-apps.example", 421),
        ("other.chat.example", 421),
    ):
        response = await http.get("/healthz", headers={"Host": host})
        assert response.status_code == status, host
    page = {"Host": "chat.example", "Origin": "https://chat.example"}  # TLS ends at the proxy
    assert (await http.get("/streams", headers=page)).status_code == 200
    anything = await client(stack, create_app(queue, settings, hosts=["*"]))
    assert (await anything.get("/healthz", headers={"Host": "evil.example"})).status_code == 200


async def test_other_sites_get_nothing_without_cors(start: Serve, queue: WatchedQueue) -> None:
    """Images, scripts, frames and links of other sites; a link to the page is harmless."""
    await sealed(queue)
    served = await start()
    frame = {**LINK, "Sec-Fetch-Dest": "iframe"}
    same_site = {**CROSS, "Sec-Fetch-Site": "same-site"}
    for headers in (CROSS, LINK, frame, same_site):
        for path in ROUTES:
            response = await served.client.get(path, headers=headers)
            if path == "/" and headers is LINK:
                assert response.status_code == 200
            else:
                assert (response.status_code, response.json()["error"]) == (403, "cross_site")
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "x"):
        response = await served.client.get("/streams/s", headers={"Origin": origin})
        assert (response.status_code, response.json()["error"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in response.headers
    for site in ("same-origin", "none"):
        response = await served.client.get("/streams/s", headers={"Sec-Fetch-Site": site})
        assert response.status_code == 200
    own = {"Origin": served.server.url}
    assert (await served.client.get("/streams/s", headers=own)).status_code == 200


@pytest.mark.parametrize("origins", [[], ["*"]])
async def test_a_page_of_another_port_changes_nothing(
    queue: WatchedQueue, settings: Settings, stack: AsyncExitStack, origins: list[str]
) -> None:
    """Browsers send a POST without headers of its own at once, to whatever listens there."""
    await sealed(queue)
    open_to_all = settings.model_copy(update={"gateway_anonymous": "read, cancel, delete"})
    http = await client(stack, create_app(queue, open_to_all, origins=origins))
    own = str(http.base_url).rstrip("/")
    other = {"Origin": "http://127.0.0.1:1"}
    form = {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}
    for headers in (other, {**other, "Sec-Fetch-Site": "same-site"}):
        for method, path in (("POST", "/cancel/s"), ("DELETE", "/streams/s")):
            response = await http.request(method, path, headers=headers)
            assert (response.status_code, response.json()["error"]) == (403, "origin_not_allowed")
            for login in ("Basic YTpi", "Bearer x", "x"):  # browsers add the first by themselves
                response = await http.request(
                    method, path, headers={**headers, "Authorization": login}
                )
                assert (response.status_code, login) == (403, login)
            assert (await http.request(method, path, headers=form)).status_code == 403
    assert (await http.get("/streams/s", headers=other)).status_code == 200
    for headers in ({"Origin": own}, {"Origin": own, "Sec-Fetch-Site": "same-origin"}, {}):
        assert (await http.delete("/streams/s", headers=headers)).status_code == 204


async def test_a_page_of_any_origin_changes_something_with_a_token_only(
    queue: WatchedQueue, settings: Settings, stack: AsyncExitStack
) -> None:
    """Where everybody may delete, pages of other sites may not do so in a visitor's name."""
    await sealed(queue)
    chosen = settings.model_copy(
        update={"gateway_anonymous": "read,delete", "token_key": SecretStr(new_secret())}
    )
    token = f"Bearer {mint_token(every=True, actions=['delete'], settings=chosen)}"
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    asks = {
        "Access-Control-Request-Method": "DELETE",
        "Access-Control-Request-Headers": "authorization",
    }
    for is_mounted in (False, True):
        app = create_app(queue, chosen, origins=["*"])
        http = await client(stack, Starlette(routes=[Mount("/in", app)]) if is_mounted else app)
        path = "/in/streams/s" if is_mounted else "/streams/s"
        assert (await http.options(path, headers={**foreign, **asks})).status_code == 200
        for login, status in (("Basic YTpi", 403), ("x", 403), ("Bearer x", 401), (token, 204)):
            headers = {**foreign, "Authorization": login}
            assert (await http.delete(path, headers=headers)).status_code == status, login
        assert (await http.delete(path, headers=foreign)).status_code == 403


@pytest.mark.parametrize("origin", ["http://[", "http://[x]", "http://a:b:c", "://", "http://\xff"])
async def test_a_malformed_origin_is_refused(start: Serve, origin: str) -> None:
    """It is the client's fault: no 500, and no traceback in the log for each request."""
    served = await start()
    headers = {b"Origin": origin.encode("latin-1")}
    response = await served.client.get("/healthz", headers=headers)
    assert response.status_code == 403


async def test_a_configured_origin_reads_by_cors(
    queue: WatchedQueue, settings: Settings, stack: AsyncExitStack
) -> None:
    """An application's page on another origin reads streams with EventSource or fetch."""
    await sealed(queue)
    named = settings.model_copy(update={"gateway_origins": "https://chat.example"})
    http = await client(stack, create_app(queue, named))
    origin = {"Origin": "https://chat.example", "Sec-Fetch-Site": "cross-site"}
    response = await http.get("/streams/s/events", headers={**origin, "Sec-Fetch-Mode": "cors"})
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://chat.example"
    asks = {"Access-Control-Request-Method": "GET"}
    asks["Access-Control-Request-Headers"] = "last-event-id"
    assert (await http.options("/streams/s/events", headers={**origin, **asks})).status_code == 200
    other = await http.get("/streams", headers={"Origin": "https://chat.example.evil"})
    assert other.status_code == 403


async def test_a_mounted_gateway_leaves_hosts_and_cors_to_its_parent(
    queue: WatchedQueue, settings: Settings, stack: AsyncExitStack
) -> None:
    """The parent has names of its own, and perhaps middleware for this; links still fail."""
    await sealed(queue)
    foreign = {"Host": "chat.example", "Origin": "https://app.example"}
    parent = Starlette(routes=[Mount("/in", create_app(queue, settings))])
    http = await client(stack, parent)
    assert (await http.get("/in/streams/s/events", headers=foreign)).status_code == 200
    assert (await http.get("/in/", headers=LINK)).status_code == 200
    assert (await http.get("/in/streams/s", headers=LINK)).status_code == 403
    open_to_all = settings.model_copy(update={"gateway_anonymous": "read,cancel,delete"})
    http = await client(stack, Starlette(routes=[Mount("/in", create_app(queue, open_to_all))]))
    by_cors = {**foreign, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}
    for headers in (foreign, by_cors, CROSS, {**foreign, "Authorization": "Basic YTpi"}):
        for method, path in (("POST", "/in/cancel/s"), ("DELETE", "/in/streams/s")):
            assert (await http.request(method, path, headers=headers)).status_code == 403
    own = {"Host": "chat.example", "Origin": "https://chat.example"}
    for headers in (own, {}):
        assert (await http.delete("/in/streams/none", headers=headers)).status_code == 204
    strict = create_app(queue, settings, hosts=["chat.example"], origins=["https://a.example"])
    http = await client(stack, Starlette(routes=[Mount("/in", strict)]))
    assert (await http.get("/in/streams", headers={"Host": "evil.example"})).status_code == 421
    assert (await http.get("/in/streams", headers=foreign)).status_code == 403
    assert (await http.get("/in/streams", headers={"Host": "chat.example"})).status_code == 200


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gateway_hosts": "https://chat.example"}, "without scheme and port"),
        ({"gateway_hosts": "chat.example:8330"}, "without scheme and port"),
        ({"gateway_origins": "chat.example"}, "as browsers send them"),
        ({"gateway_origins": "https://chat.example/"}, "as browsers send them"),
        ({"gateway_origins": "http://["}, "as browsers send them"),
    ],
)
def test_a_wrong_setting_is_reported_at_the_start(
    settings: Settings, wrong: dict[str, str], message: str
) -> None:
    """It would refuse every browser, or nobody."""
    with pytest.raises(ConfigurationError, match=message):
        create_app(settings=settings.model_copy(update=wrong))
