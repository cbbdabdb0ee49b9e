"""The page of a gateway with tokens: asked for, kept, renewed, revoked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from streamq import Settings, load_settings, open_writer
from streamq.access import mint_token, new_secret, revoke_token
from streamq.gateway import GatewayOptions, create_app, serve

from .browsers import Browser
from .served import WatchedQueue, end


@pytest.fixture
def token_settings() -> Settings:
    return load_settings(backend="memory", retry_seconds=0.05, token_key=new_secret())


@pytest.fixture
async def guarded(queue: WatchedQueue, token_settings: Settings) -> AsyncIterator[str]:
    """Address of a gateway that asks for tokens."""
    async with AsyncExitStack() as stack:
        options = GatewayOptions(retry_seconds=0.05)
        app = create_app(queue, token_settings, options=options)
        yield (await stack.enter_async_context(serve(app))).url


def token_for(settings: Settings, lifetime: float = 3600) -> str:
    return mint_token(
        settings=settings,
        every=True,
        actions=("read", "list"),
        subject="ada",
        lifetime=timedelta(seconds=lifetime),
    )


async def give(browser: Browser, token: str) -> None:
    """Paste a token into the dialog."""
    await browser.until("document.querySelector('#token-dialog[open]')")
    await browser.until("document.activeElement.id === 'token'")
    await browser.type(token)
    await browser.press("Enter")


async def test_a_token_is_asked_for_and_kept_as_a_cookie(
    guarded: str, queue: WatchedQueue, browser: Browser, token_settings: Settings
) -> None:
    """Whoever opens a link to a stream gets no further with an answer that says 401."""
    await end(queue, "s", "secret")
    await browser.open(f"{guarded}/?stream=s")
    await browser.until("document.querySelector('#token-dialog[open]')")
    assert await browser.text("#token-title") == "A token is needed"
    await browser.type("not a token")
    await browser.press("Enter")
    assert "no spaces" in (await browser.text("#token-error") or "")
    await browser.value("document.getElementById('token').value = ''")
    await browser.type("ey.no.token")
    await browser.press("Enter")
    await browser.until("document.getElementById('token-error').textContent.includes('oken')")
    await browser.value("document.getElementById('token').value = ''")
    token = token_for(token_settings)
    await browser.type(f"Bearer {token}")
    await browser.press("Enter")
    await browser.until("document.querySelector('#state.END')")
    assert await browser.text("#output") == "secret"
    await browser.until("document.getElementById('token-button').textContent === 'ada'")
    assert await browser.value("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)") == (
        "{}{}"
    )
    kept = "location.href + document.documentElement.outerHTML + document.cookie"
    assert token not in await browser.value(kept)
    await browser.open(f"{guarded}/?stream=s")  # the cookie reads
    await browser.until("document.querySelector('#state.END')")
    await browser.until("document.getElementById('token-button').textContent === 'ada'")
    await browser.value("document.getElementById('token-button').click()")
    await browser.value("document.getElementById('log-out').click()")
    await browser.until("document.getElementById('token-title').textContent.includes('needed')")
    assert "secret" not in await browser.value("document.documentElement.outerHTML")
    assert await browser.value("document.querySelectorAll('#list button').length") == 0
    await browser.open(f"{guarded}/?stream=s")
    await browser.until("document.querySelector('#token-dialog[open]')")
    assert await browser.text("#output") == ""


async def test_a_token_that_ends_is_replaced_and_reading_goes_on(
    guarded: str, queue: WatchedQueue, browser: Browser, token_settings: Settings
) -> None:
    """Nobody starts a long stream again because a token has ended in the middle of it."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("one ")
        await writer.flush()
        await browser.open(f"{guarded}/?stream=s")
        await give(browser, token_for(token_settings, lifetime=3))
        await browser.until("document.getElementById('output').textContent === 'one '")
        notice = "document.getElementById('session-notice')"
        await browser.until(f"{notice}.textContent.includes('less than two minutes')")
        await browser.until("document.querySelector('#token-dialog[open]')")
        assert await browser.text("#token-title") == "The token has ended"
        await give(browser, token_for(token_settings))
        await writer.send_chunk("two")
        await browser.until("document.getElementById('output').textContent === 'one two'")
        assert await browser.text("#session-notice") is None


async def test_a_revoked_token_is_reported_in_words(
    guarded: str, queue: WatchedQueue, browser: Browser, token_settings: Settings
) -> None:
    """It looked like a gateway that fails."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("one ")
        await writer.flush()
        token = token_for(token_settings)
        await browser.open(f"{guarded}/?stream=s")
        await give(browser, token)
        await browser.until("document.getElementById('output').textContent === 'one '")
        await revoke_token(token, settings=token_settings, queue=queue)
        await browser.until("document.querySelector('#token-dialog[open]')")
        assert "not accepted" in (await browser.text("#token-title") or "") or "revoked" in (
            await browser.text("#token-title") or ""
        )
        assert "revoked" in (await browser.text("#token-dialog") or "")
        await browser.press("Escape")
        await browser.until("document.getElementById('connection').textContent === 'disconnected'")
        assert await browser.text("#output") == "one "
        await browser.value("document.getElementById('token-button').click()")
        await give(browser, token_for(token_settings, lifetime=1800))
        await writer.send_chunk("two")
        await browser.until("document.getElementById('output').textContent === 'one two'")
