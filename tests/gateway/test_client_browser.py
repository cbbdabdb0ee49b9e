"""The JavaScript client in a real browser: modules, other origins, networks that go, React."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.programs import missing

from streamq import Settings, open_writer
from streamq.access import mint_token, new_secret
from streamq.gateway import GatewayOptions, create_app, serve

from .browsers import Browser
from .cutting import cutting
from .scripts import answering
from .served import Serve, WatchedQueue, eventually

REACT_HOOK = Path(__file__).parents[2] / "docs/examples/react/useStream.js"
DOCUMENT = Path(__file__).parents[2] / "docs/javascript.md"
_DEBIAN = Path("/usr/share/nodejs")


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def load(browser: Browser, url: str, module: str = "./client.js") -> None:
    """Open a page, and import the client in it as ``window.client``."""
    await browser.open(url)
    await browser.until("location.host && document.readyState === 'complete'")
    await browser.value(
        f"import({json.dumps(module)}).then((found) => {{ window.client = found; }},"
        "(error) => { window.refusal = String(error); }); 0"
    )
    await browser.until("window.client || window.refusal")


def pages(files: dict[str, tuple[str, str]]) -> Any:
    """Return answers with files of a site of its own, as they are when they are asked for."""

    def answer(request: str) -> tuple[bytes, bool]:
        name = request.split(" ")[1].partition("?")[0].strip("/").replace(".", "_") or "page"
        kind, text = files.get(name, ("text/plain", ""))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n"
        return (head + text).encode(), True

    return answer


async def test_twelve_streams_of_a_page_leave_room_for_a_request(
    start: Serve, queue: WatchedQueue, browser: Browser, stack: AsyncExitStack
) -> None:
    """A browser has six connections for a host; the seventh stream and the stop button hung."""
    served = await start()
    names = [f"part-{number}" for number in range(12)]
    writers = [await stack.enter_async_context(open_writer(name, queue=queue)) for name in names]
    await load(browser, f"{served.server.url}/")
    await browser.value(f"""
      window.gateway = new client.Gateway(undefined, {{ share: true }});
      window.now = {{}};
      window.views = {json.dumps(names)}.map((name) =>
        gateway.show(name, (view) => {{ now[name] = view.state + " " + view.text; }}));
      0
    """)
    for text in ("one", ", two"):
        for writer in writers:
            await writer.send_chunk(text)
            await writer.flush()
    await browser.until("Object.values(now).every((text) => text === 'live one, two')")
    assert await browser.value("Object.keys(now).length") == 12
    await browser.value(
        "gateway.status('part-3').then(({ state }) => { window.answered = state; }); 0"
    )
    await browser.until("window.answered === 'OPEN'")
    assert served.gateway.statistics().connections == 1
    await browser.value("views.forEach((view) => view.close())")
    await eventually(lambda: served.gateway.statistics().connections == 0)


async def test_every_event_arrives_once_whatever_cuts_the_connection(
    queue: WatchedQueue, settings: Settings, browser: Browser, stack: AsyncExitStack
) -> None:
    """A browser's network stack reports cuts in its own ways, and refusals without CORS as cuts."""
    site = await stack.enter_async_context(answering(pages({"page": ("text/html", "")})))
    options = GatewayOptions(retry_seconds=0.01)
    app = create_app(queue, settings, options=options, origins=[site])
    server = await stack.enter_async_context(serve(app))
    proxy = await stack.enter_async_context(cutting(server.port, least=1_000))
    proxy.refuses = False  # until the client knows for how long this gateway wants it to wait
    await load(browser, site, f"{server.url}/client.js")
    writers = [await open_writer(name, queue=queue) for name in ("a", "b")]
    await browser.value(f"""
      const gateway = new client.Gateway({json.dumps(proxy.url)}), wait = 60;
      window.seen = {{}};
      const read = async (name, events) => {{
        for await (const {{ event, stream, offset }} of events) {{
          if (event !== "stream") (seen[name + (stream ?? "")] ??= []).push(offset);
        }}
        window.over = (window.over ?? 0) + 1;
      }};
      read("one ", gateway.events("a", {{ wait }}));
      read("many ", gateway.events(["a", "b"], {{ wait }}));
      0
    """)
    for number in range(40):
        if number == 5:
            await browser.until("seen['one '] && seen['many a']")
            proxy.refuses = True
        for writer in writers:
            await writer.send_chunk(f"größe 🌊 {number} " * (number % 5))
        await writers[number % 2].flush()
    for writer in writers:
        await writer.finish()
    await browser.until("window.over === 2", seconds=40)
    offsets = list(range(1, 42))
    assert await browser.value("seen") == {"one ": offsets, "many a": offsets, "many b": offsets}
    assert proxy.cuts > 3


async def test_a_page_of_another_origin_reads_with_a_token(
    queue: WatchedQueue, settings: Settings, browser: Browser, stack: AsyncExitStack
) -> None:
    """The application has its own server; only origins that are named load the client and read."""
    guarded = settings.model_copy(update={"token_key": SecretStr(new_secret())})
    site = pages({"page": ("text/html", "<!doctype html><p id=text></p><p id=state></p>")})
    page = (await stack.enter_async_context(answering(site))).replace("127.0.0.1", "localhost")
    stranger = (await stack.enter_async_context(answering(site))).replace("127.0.0.1", "localhost")
    app = create_app(queue, guarded, origins=[page])
    server = await stack.enter_async_context(serve(app))
    writer = await stack.enter_async_context(open_writer("a/b", queue=queue))
    await writer.send_chunk("<b>text</b>")
    await load(browser, page, f"{server.url}/client.js")
    assert await browser.value("window.refusal") is None
    given = json.dumps(mint_token(stream="a/b", settings=guarded))
    await browser.value(f"""
      const token = async () => {given};
      const gateway = new client.Gateway({json.dumps(server.url)}, {{ token }});
      gateway.show("a/b", ({{ text, state }}) => {{
        document.getElementById("text").textContent = text;
        document.getElementById("state").textContent = state;
      }});
      (async () => {{
        window.many = [];
        for await (const {{ event }} of gateway.events(["a/b"])) window.many.push(event);
      }})();
      0
    """)
    await browser.until("document.getElementById('state').textContent === 'live'")
    await writer.finish()
    await browser.until("document.getElementById('state').textContent === 'END'")
    await browser.until("window.many.includes('end')")
    assert await browser.text("#text") == "<b>text</b>"
    await load(browser, stranger, f"{server.url}/client.js")
    assert "Failed to fetch" in str(await browser.value("window.refusal"))


async def test_a_session_cookie_stands_for_the_token(
    queue: WatchedQueue, settings: Settings, browser: Browser, stack: AsyncExitStack
) -> None:
    """An application behind a login needs no token in the page; the function renews the cookie."""
    guarded = settings.model_copy(update={"token_key": SecretStr(new_secret())})
    server = await stack.enter_async_context(serve(create_app(queue, guarded)))
    writer = await stack.enter_async_context(open_writer("s", queue=queue))
    await writer.send_chunk("one")
    await load(browser, f"{server.url}/")
    tokens = [
        mint_token(stream="s", lifetime=timedelta(seconds=seconds), settings=guarded)
        for seconds in (2, 900)
    ]
    await browser.value(f"""
      window.reasons = [];
      const tokens = {json.dumps(tokens)};
      const token = async ({{ reason }}) => {{
        reasons.push(reason);
        const headers = {{ Authorization: `Bearer ${{tokens.shift()}}` }};
        await fetch("session", {{ method: "POST", headers }});
      }};
      const gateway = new client.Gateway(undefined, {{ token, share: true }});
      gateway.show("s", (view) => {{ window.now = view; }});
      0
    """)
    await browser.until("now.text === 'one'")
    await browser.until("reasons.length === 2")
    await writer.send_chunk(", two")
    await writer.finish()
    await browser.until("now.state === 'END'")
    assert await browser.value("now.text") == "one, two"
    assert await browser.value("reasons") == ["first", "ending"]


async def test_the_first_page_of_the_documents_shows_and_stops_a_stream(
    queue: WatchedQueue, settings: Settings, browser: Browser, stack: AsyncExitStack
) -> None:
    """It is what everybody copies: a retry, a token from the page's server, a stop button."""
    secret = SecretStr(new_secret())
    update = {"token_key": secret, "gateway_cancel_tenants": "default"}
    guarded = settings.model_copy(update=update)
    blocks = re.findall(r"```html\n(.*?)```", DOCUMENT.read_text(), re.S)
    token = mint_token(prefix="chat-7", actions=["read", "cancel"], settings=guarded)
    files = {"token": ("text/plain", token)}
    origin = await stack.enter_async_context(answering(pages(files)))
    app = create_app(queue, guarded, origins=[origin])
    server = await stack.enter_async_context(serve(app))
    files["page"] = ("text/html", blocks[0].replace("http://127.0.0.1:8330", server.url))
    first = await open_writer("chat-7/answer", queue=queue, epoch=1)
    await first.send_chunk("half")
    await browser.open(origin)
    await browser.until("document.getElementById('text')?.textContent === 'half'")
    assert await browser.text("#state") == "live"
    await first.aclose()
    writer = open_writer("chat-7/answer", queue=queue, epoch=2)
    async with writer as second:
        await second.send_chunk("<b>whole</b>")
        await browser.until("document.getElementById('text').textContent === '<b>whole</b>'")
        await browser.value(
            "window.onunhandledrejection = ({ reason }) => { window.refused = reason.code; };"
            "document.getElementById('stop').click()"
        )
        await browser.until("window.refused === 'not_cancellable'")  # it is named after nothing
    await browser.until("document.getElementById('state').textContent === 'END'")


async def test_a_browser_that_was_offline_goes_on(
    start: Serve, queue: WatchedQueue, browser: Browser, stack: AsyncExitStack
) -> None:
    """A train leaves a tunnel: the text goes on, and says meanwhile that it waits."""
    served = await start(retry_seconds=0.1, max_age_seconds=0.5)
    writer = await stack.enter_async_context(open_writer("s", queue=queue))
    await writer.send_chunk("one")
    await load(browser, f"{served.server.url}/")
    await browser.value("""
      window.states = [];
      new client.Gateway().show("s", (view) => {
        window.now = view;
        if (states.at(-1) !== view.state) states.push(view.state);
      });
      0
    """)
    await browser.until("now.text === 'one'")
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    await browser.call("Network.enable")
    await browser.call("Network.emulateNetworkConditions", offline=True, **network)
    await browser.until("now.state === 'reconnecting' && navigator.onLine === false")
    assert await browser.value("now.text") == "one"
    await writer.send_chunk(", two")
    await writer.finish()
    await browser.call("Network.emulateNetworkConditions", offline=False, **network)
    await browser.until("now.state === 'END'")
    assert await browser.value("now.text") == "one, two"
    others = await browser.value("states.filter((state) => state !== 'live')")
    assert others == ["waiting", "reconnecting", "END"]


async def test_views_are_drawn_once_for_a_frame(
    start: Serve, queue: WatchedQueue, browser: Browser
) -> None:
    """Ten thousand chunks must not render a page ten thousand times."""
    async with open_writer("s", queue=queue) as writer:
        for number in range(10_000):
            await writer.send_chunk(f"{number} ")
    served = await start()
    await load(browser, f"{served.server.url}/")
    await browser.value("""
      window.calls = window.drawn = 0;
      window.draw = () => { drawn++; requestAnimationFrame(draw); };
      requestAnimationFrame(draw);
      new client.Gateway().show("s", (view) => { window.calls++; window.now = view; });
      0
    """)
    await browser.until("now.state === 'END'")
    assert await browser.value("now.chunks") == 10_000
    assert await browser.value("now.text.length") == 48_890
    assert await browser.value("window.calls <= window.drawn + 3")


async def test_the_react_hook_renders_a_stream(
    queue: WatchedQueue, settings: Settings, browser: Browser, stack: AsyncExitStack
) -> None:
    """The example is what people copy; strict mode mounts each component twice."""
    files = {
        "react_js": _DEBIAN / "react/umd/react.development.js",
        "react-dom_js": _DEBIAN / "react-dom/umd/react-dom.development.js",
    }
    if not all(file.exists() for file in files.values()):
        missing("there is no React; install Debian's node-react and node-react-dom")
    page = """<!doctype html><div id="root"></div>
      <script src="react.js"></script><script src="react-dom.js"></script>
      <script type="importmap">{"imports": {"react": "./shim.js"}}</script>"""
    shim = "export const { useMemo, useSyncExternalStore } = window.React;"
    script = "text/javascript"
    served = {name: (script, file.read_text()) for name, file in files.items()}
    served["page"] = ("text/html", page)
    served["shim_js"] = (script, shim)
    served["useStream_js"] = (script, REACT_HOOK.read_text())
    site = pages(served)
    origin = await stack.enter_async_context(answering(site))
    app = create_app(queue, settings, origins=[origin])
    server = await stack.enter_async_context(serve(app))
    await load(browser, origin, f"{server.url}/client.js")
    await browser.value(f"""
      import("./useStream.js").then(({{ useStream }}) => {{
        const gateway = new client.Gateway({json.dumps(server.url)}, {{ share: true }});
        const Answer = ({{ name }}) => {{
          const {{ text, state, attempt }} = useStream(gateway, name);
          return React.createElement("p", null, `${{name}}: ${{text}} (${{state}}, ${{attempt}})`);
        }};
        const root = ReactDOM.createRoot(document.getElementById("root"));
        window.show = (...names) => root.render(React.createElement(React.StrictMode, null,
          names.map((name) => React.createElement(Answer, {{ name, key: name }}))));
        show("a", "b");
      }});
      0
    """)

    async def shows(text: str) -> None:
        await browser.until(f"document.getElementById('root').innerText === {json.dumps(text)}")

    await shows("a: (waiting, 0)\n\nb: (waiting, 0)")
    first = await open_writer("a", queue=queue, epoch=1)
    await first.send_chunk("half")
    await first.flush()
    await shows("a: half (live, 1)\n\nb: (waiting, 0)")
    await first.aclose()
    async with open_writer("a", queue=queue, epoch=2) as second:
        await second.send_chunk("whole")
    await shows("a: whole (END, 2)\n\nb: (waiting, 0)")
    await browser.value("show('b')")
    await shows("b: (waiting, 0)")
    async with open_writer("b", queue=queue) as other:
        await other.send_chunk("<i>x</i>")
    await shows("b: <i>x</i> (END, 1)")
    await browser.value("show()")
    await eventually(lambda: app.state.gateway.statistics().connections == 0)
