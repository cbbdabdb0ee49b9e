"""The JavaScript client in Node: tokens that end, are refused, are revoked, or cannot be had."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from streamq import Settings, open_writer
from streamq.access import mint_token, new_secret

from .scripts import STATIC, answering, running_script, said
from .served import Serve, WatchedQueue, eventually

ASKING = """
const token = async ({ reason }) => {
  say(`token ${reason}`);
  return hear();
};
const follow = async (options) => {
  const gateway = new Gateway(given.url, { token, ...options });
  try {
    for await (const { event, value } of gateway.events("s")) {
      say(value ?? event);
    }
  } catch (error) {
    say(failed(error));
  }
};
"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"token_key": SecretStr(new_secret())})


def token(settings: Settings, seconds: float = 900, **of: Any) -> str:
    return mint_token(stream="s", lifetime=timedelta(seconds=seconds), settings=settings, **of)


async def test_the_next_token_is_there_before_the_old_one_ends(
    start: Serve, queue: WatchedQueue, settings: Settings, tmp_path: Path
) -> None:
    """The reader does not notice, and the clocks of both sides need not agree."""
    served = await start(retry_seconds=0.01)
    script = f"Date.now = () => 0;{ASKING} await follow();"
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(open_writer("s", queue=queue))
        running = await stack.enter_async_context(
            running_script(tmp_path, script, url=served.server.url)
        )
        assert await running.line() == "token first"
        running.tell(token(settings, 3))
        await writer.send_chunk("first")
        assert await running.line() == "first"
        [connection] = [served.gateway.statistics().connections]
        assert await running.line() == "token ending"
        assert served.gateway.statistics().connections == connection == 1  # in time
        running.tell(token(settings))
        await eventually(lambda: served.gateway.statistics().connections == 0)  # token_expired
        await eventually(lambda: served.gateway.statistics().connections == 1)
        await writer.send_chunk("second")
        await writer.finish()
        assert await running.rest() == ["second", "end"]


async def test_a_refused_token_is_renewed_at_once(
    start: Serve, queue: WatchedQueue, settings: Settings, tmp_path: Path
) -> None:
    """A laptop wakes with a token of yesterday; also where a request is not a stream."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("text")
    served = await start()
    script = f"""{ASKING}
    await follow();
    const gateway = new Gateway(given.url, {{ token }});
    const [status, story] = await Promise.all([gateway.status("s"), gateway.story("s")]);
    say(status.state, story.text);
    """
    async with running_script(tmp_path, script, url=served.server.url) as running:
        for expected in (["text", "end"], [["END", "text"]]):
            assert await running.line() == "token first"
            running.tell("a.b.c")
            assert await running.line() == "token refused"
            running.tell(f" {token(settings)}\n")
            assert [await running.line() for _ in expected] == expected


async def test_a_token_that_is_refused_again_and_again_is_an_error(
    start: Serve, settings: Settings, tmp_path: Path
) -> None:
    """An endless loop would load the issuer, and show nothing to anybody."""
    served = await start(retry_seconds=0.01)
    bad = token(settings.model_copy(update={"token_key": SecretStr(new_secret())}))
    script = (
        ASKING
        + "await follow(); await follow({ token: given.bad }); await follow({ token: null });"
    )
    async with running_script(tmp_path, script, url=served.server.url, bad=bad) as running:
        for reason in ("first", "refused", "refused"):
            assert await running.line() == f"token {reason}"
            running.tell(bad)
        errors = await running.rest()
    assert [(error["code"], error["status"]) for error in errors] == [
        ("invalid_token", 401),  # of the function
        ("invalid_token", 401),  # a text cannot be renewed
        ("token_required", 401),  # none
    ]
    assert bad not in str(errors)


async def test_a_function_that_fails_ends_with_its_reason(
    start: Serve, settings: Settings, tmp_path: Path
) -> None:
    """The session of the application is over, say: the user has to log in."""
    served = await start(retry_seconds=0.01)
    script = f"""{ASKING}
    let calls = 0;
    const cause = new Error("log in first");
    await follow({{ token: () => {{ calls++; throw cause; }} }});
    say(calls);
    const follows = [7, "Bearer abc", {{}}].map((bad) => follow({{ token: () => bad }}));
    for (const following of follows) await following;
    """
    calls, errors = None, []
    for line in await said(tmp_path, script, url=served.server.url):
        if isinstance(line, int):
            calls = line
        else:
            errors.append(line)
    assert calls == 3
    assert {error["code"] for error in errors} == {"token_failed"}
    assert "log in first" in errors[0]["message"]
    assert any("without the word Bearer" in error["message"] for error in errors)
    assert "abc" not in str(errors)


async def test_without_a_new_token_the_old_one_is_used_while_it_lasts(
    start: Serve, queue: WatchedQueue, settings: Settings, tmp_path: Path
) -> None:
    """The application's server is away for a moment; the gateway is not."""
    served = await start(retry_seconds=0.01)
    script = f"""
    let calls = 0;
    const token = ({{ reason }}) => {{
      say(`token ${{reason}}`);
      if (++calls === 2) throw new Error("away");
      return calls === 1 ? given.short : given.long;
    }};
    {ASKING.partition("};")[2]}
    await follow();
    """
    tokens = {"short": token(settings, 3), "long": token(settings)}
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("first")
        await writer.flush()
        running = running_script(tmp_path, script, url=served.server.url, **tokens)
        async with running as run:
            assert await run.line() == "token first"
            assert await run.line() == "first"
            assert await run.line() == "token ending"  # fails
            assert await run.line() == "token ending"  # after the connection has ended
            await writer.finish()
            assert await run.rest() == ["end"]


async def test_a_revoked_token_is_the_end(
    start: Serve, queue: WatchedQueue, settings: Settings, tmp_path: Path
) -> None:
    """Whoever was logged out does not come back by a token that is renewed in the background."""
    served = await start()
    admin = mint_token(every=True, actions=["admin"], subject="root", settings=settings)
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("first")
        await writer.flush()
        script = ASKING + "await follow();"
        async with running_script(tmp_path, script, url=served.server.url) as running:
            assert await running.line() == "token first"
            running.tell(token(settings, subject="ada"))
            assert await running.line() == "first"
            answer = await served.client.post(
                "/revocations",
                json={"subject": "ada"},
                headers={"Authorization": f"Bearer {admin}"},
            )
            assert answer.status_code < 300, answer.text
            [error] = await running.rest()
    assert (error["code"], error["retryable"]) == ("revoked", False)


async def test_a_reader_that_waits_for_a_token_can_be_stopped(tmp_path: Path) -> None:
    """Whoever closes the page does not wait for the issuer."""
    script = """
    const control = new AbortController(), { signal } = control;
    const token = () => { control.abort(new Error("enough")); return new Promise(() => {}); };
    const gateway = new Gateway("http://127.0.0.1:1", { token });
    await gateway.events("s", { signal }).next().catch(({ message }) => say(message));
    await gateway.list({ signal }).catch(({ message }) => say(message));
    process.exit(); // the function of the test never answers
    """
    assert await said(tmp_path, script) == ["enough", "enough"]


async def test_a_slow_issuer_delays_nothing_while_the_token_is_good(tmp_path: Path) -> None:
    """A stop button must not hang for what is only needed half a minute later."""
    script = f"""
    const {{ Tokens }} = await import({json.dumps((STATIC / "client/tokens.js").as_uri())});
    let give;
    const tokens = new Tokens(({{ reason }}) => reason === "first" ? "old"
      : new Promise((resolve) => {{ give = resolve; }}));
    say(await tokens.current());
    const later = globalThis.setTimeout, planned = [];
    globalThis.setTimeout = (call) => planned.push(call);
    tokens.endsIn("old", 300);
    globalThis.setTimeout = later;
    planned[0]();
    say(await tokens.current(), typeof give);
    tokens.end("old");
    const next = tokens.current();
    give("new");
    say(await next, await tokens.current());
    """
    assert await said(tmp_path, script) == ["old", ["old", "function"], ["new", "new"]]


async def test_a_token_is_in_no_address(tmp_path: Path) -> None:
    """Proxies log addresses."""
    requests: list[str] = []

    def answer(request: str) -> tuple[bytes, bool]:
        requests.append(request)
        return b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", True

    script = """
    const options = { token: () => "se.cr.et", tenant: "acme" };
    const gateway = new Gateway(given.url + "/in/it?a=b#c", options);
    const calls = ["status", "story", "stop"].map((verb) => () => gateway[verb]("a/b c"));
    calls.push(() => gateway.list({ prefix: "p/" }));
    calls.push(() => gateway.events("a//b", { after: "1@2", wait: 1 }).next());
    calls.push(() => gateway.events(["a"]).next());
    calls.push(() => gateway.status("x/events"), () => gateway.events("x/events").next());
    for (const call of calls) await call().catch(({ code }) => say(code));
    """
    async with answering(answer) as url:
        assert await said(tmp_path, script, url=url) == ["http_403"] * 8
    assert [request.splitlines()[0].removesuffix(" HTTP/1.1") for request in requests] == [
        "GET /in/it/t/acme/streams/a/b%20c",
        "GET /in/it/t/acme/story/a/b%20c",
        "POST /in/it/t/acme/cancel/a/b%20c?wait=10",
        "GET /in/it/t/acme/streams?prefix=p%2F",
        "GET /in/it/t/acme/events/a%2F%2Fb?after=1%402",
        "POST /in/it/t/acme/events",
        "GET /in/it/t/acme/streams/x%2Fevents",
        "GET /in/it/t/acme/events/x/events",
    ]
    for request in requests:
        assert "Authorization: Bearer se.cr.et\r\n" in request
