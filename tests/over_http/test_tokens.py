"""Readers through a gateway whose tokens end, are refused, or permit nothing."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from tests.gateway.served import WatchedQueue

from streamq import (
    AccessDeniedError,
    Chunk,
    ConfigurationError,
    StreamNotFoundError,
    open_gateway,
    open_reader,
    open_readers,
    open_writer,
)
from streamq.access import mint_token, revoke_token
from streamq.driver import StreamId

from .serving import SETTINGS, WITH_KEY, Serving, everything


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
async def test_token_is_asked_for_again_when_it_ends(
    is_async: bool, queue: WatchedQueue, serving: Serving
) -> None:
    """A reader that lives longer than a token loses no event."""
    asked: list[int] = []

    def token() -> str:
        asked.append(threading.get_ident())
        seconds = 1.5 if len(asked) == 1 else 60
        lifetime = timedelta(seconds=seconds)
        return mint_token(every=True, settings=WITH_KEY, lifetime=lifetime)

    async def token_later() -> str:
        return token()

    async with serving(WITH_KEY) as server, open_writer("s", queue=queue) as writer:
        source = token_later if is_async else token
        async with open_reader(f"{server.url}/events/s", token=source, settings=SETTINGS) as reader:
            for number in range(5):
                await writer.send_chunk(number)
                await writer.flush()
                event = await anext(reader)
                assert isinstance(event, Chunk)
                assert event.value == number
                await asyncio.sleep(0.5)
    assert len(asked) == 2
    assert (asked[0] == threading.get_ident()) is is_async  # what may block has a thread


async def test_token_that_ends_for_many_streams_is_asked_for_once(
    queue: WatchedQueue, serving: Serving
) -> None:
    """Two hundred streams of a console must not ask the login service two hundred times."""
    asked = 0

    def token() -> str:
        nonlocal asked
        asked += 1
        lifetime = timedelta(seconds=2 if asked == 1 else 60)
        return mint_token(every=True, settings=WITH_KEY, lifetime=lifetime)

    names = [f"s{number}" for number in range(12)]
    async with serving(WITH_KEY) as server:
        writers = [await open_writer(name, queue=queue) for name in names]
        async with (
            open_gateway(server.url, token=token, settings=SETTINGS) as gateway,
            open_readers(names, queue=gateway, settings=SETTINGS) as readers,
        ):
            for value in ("first", "after the token has ended"):
                for writer in writers:
                    await writer.send_chunk(value)
                    await writer.flush()
                for _ in names:
                    event = (await anext(readers)).event
                    assert isinstance(event, Chunk)
                    assert event.value == value
                await asyncio.sleep(2.5 if value == "first" else 0)
        for writer in writers:
            await writer.aclose()
    assert asked == 2


async def test_function_that_returns_no_token_is_named(
    queue: WatchedQueue, serving: Serving
) -> None:
    """A forgotten ``return`` must not send a token that is called None."""
    async with serving(WITH_KEY) as server:
        with pytest.raises(ConfigurationError, match="the token is NoneType"):
            await open_gateway(server.url, token=lambda: None, settings=SETTINGS)  # type: ignore[arg-type]


async def test_refused_token_is_asked_for_once_more_and_then_reported(
    queue: WatchedQueue, serving: Serving
) -> None:
    """An application whose tokens are all refused must hear of it, and not go round for ever."""
    asked = 0

    def token() -> str:
        nonlocal asked
        asked += 1
        return "hunter2.hunter2.hunter2"

    async with serving(WITH_KEY) as server:
        for given, times in ((token, 2), ("hunter2.hunter2.hunter2", 0), (None, 0)):
            asked = 0
            with pytest.raises(AccessDeniedError) as refused:
                async with open_reader(f"{server.url}/events/s", token=given, settings=SETTINGS):
                    pass
            assert asked == times
            assert "hunter2" not in str(refused.value)


async def test_revoked_token_is_replaced_or_reported(queue: WatchedQueue, serving: Serving) -> None:
    """Whoever has lost the right gets nothing more; whoever gets another token goes on."""
    tokens = [mint_token(every=True, settings=WITH_KEY) for _ in range(2)]
    given = iter(tokens)
    async with serving(WITH_KEY) as server, open_writer("s", queue=queue) as writer:
        address = f"{server.url}/events/s"
        async with (
            open_reader(address, token=lambda: next(given), settings=SETTINGS) as renewing,
            open_reader(address, token=tokens[0], settings=SETTINGS) as stubborn,
        ):
            await writer.send_chunk("one")
            await writer.flush()
            for reader in (renewing, stubborn):
                await anext(reader)
            await revoke_token(tokens[0], queue=queue, settings=WITH_KEY)
            with pytest.raises(AccessDeniedError, match="revoked"):
                await anext(stubborn)
            await writer.send_chunk("two")
            await writer.flush()
            event = await anext(renewing)
            assert isinstance(event, Chunk)
            assert event.value == "two"


async def test_token_that_permits_nothing_here_sees_no_stream(
    queue: WatchedQueue, serving: Serving
) -> None:
    """What a token does not permit is not there, as for every other client."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("secret")
    token = mint_token(stream="other", settings=WITH_KEY)
    async with serving(WITH_KEY) as server:
        with pytest.raises(StreamNotFoundError):
            async with open_reader(f"{server.url}/events/s", token=token, must_exist=True):
                pass
        token = mint_token(stream="s", actions=["describe"], settings=WITH_KEY)
        with pytest.raises(AccessDeniedError, match="does not permit"):
            await everything(f"{server.url}/events/s", token=token)


async def test_names_belong_to_the_tenant_of_the_token(
    queue: WatchedQueue, serving: Serving
) -> None:
    """The reader need not know its tenant, and the cursor is that of the backend all the same."""
    theirs = WITH_KEY.model_copy(update={"tenant": "acme"})
    async with open_writer("s", queue=queue, settings=theirs) as writer:
        await writer.send_chunk("theirs")
    token = mint_token(every=True, tenant="acme", settings=WITH_KEY)
    expected = await everything(StreamId("acme", "s"), queue=queue)  # type: ignore[arg-type]
    async with serving(WITH_KEY) as server:
        for address in ("/events/s", "/t/acme/events/s", "/t/acme/story/s", "/?stream=s"):
            assert await everything(server.url + address, token=token) == expected
        async with open_gateway(server.url, token=token) as gateway:
            assert await everything("s", queue=gateway) == expected
            assert await everything(f"{server.url}/events/s", queue=gateway) == expected
        with pytest.raises(StreamNotFoundError):
            await everything(f"{server.url}/t/default/events/s", token=token, must_exist=True)
