"""Functions that permit requests: every kind of them, slow ones, and those that fail."""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from starlette.requests import Request

from streamq import ConfigurationError
from streamq.access import permit
from streamq.driver import StreamId
from streamq.gateway import Authorize, create_app
from streamq.gateway import serve as serve_app

from .authorizing import (
    ABSENT,
    OPEN,
    STREAMS,
    Start,
    listed,
    own_chats,
    seen,
    starting,
    user,
    write,
)
from .served import WatchedQueue, eventually


@pytest.fixture
async def start(queue: WatchedQueue) -> AsyncIterator[Start]:
    async with starting(queue) as start:
        yield start


@pytest.mark.parametrize("kind", ["sync", "async", "partial", "object", "plain around async"])
async def test_every_kind_of_function(kind: str, start: Start, queue: WatchedQueue) -> None:
    """Also one that is made from another: a mistake here would be a request without a check."""
    await write(queue, "mine", "theirs")

    def plain(request: Request, stream: StreamId | None) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        return permit("read", stream=user(request))

    async def asynchronous(request: Request, stream: StreamId | None) -> Any:
        await asyncio.sleep(0)
        return permit("read", stream=user(request))

    async def with_more(more: str, request: Request, stream: StreamId | None) -> Any:
        return permit(more, stream=user(request))

    class Checks:
        async def __call__(self, request: Request, stream: StreamId | None) -> Any:
            return permit("read", stream=user(request))

    def wrapped(request: Request, stream: StreamId | None) -> Any:
        return asynchronous(request, stream)

    functions: dict[str, Authorize] = {
        "sync": plain,
        "async": asynchronous,
        "partial": functools.partial(with_more, "read"),
        "object": Checks(),
        "plain around async": wrapped,
    }
    client = await start(functions[kind])
    head = {"X-User": "mine"}
    assert (await client.get("/streams/mine", headers=head)).status_code == 200
    assert seen(await client.get("/streams/theirs", headers=head)) == ABSENT


async def test_a_function_that_blocks_delays_no_reader(start: Start, queue: WatchedQueue) -> None:
    """A query to a database in a plain function must not hold up the live streams."""
    entered, proceed = threading.Event(), threading.Event()

    def authorize(_request: Request, stream: StreamId | None) -> bool:
        if stream is not None and stream.name == "slow":
            entered.set()
            assert proceed.wait(20)
        return True

    await write(queue, "slow", "quick")
    client = await start(authorize)
    waiting = asyncio.create_task(client.get("/streams/slow"))
    await eventually(entered.is_set)
    assert (await client.get("/streams/quick")).status_code == 200
    assert not waiting.done()
    proceed.set()
    assert (await waiting).status_code == 200


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_function_that_hangs_is_bounded(
    is_async: bool, start: Start, queue: WatchedQueue
) -> None:
    """A database that is away must not collect requests without end."""
    await write(queue, "a")
    release = threading.Event()

    async def hang(_request: Request, _stream: StreamId | None) -> bool:
        await asyncio.Event().wait()
        return True

    def block(_request: Request, _stream: StreamId | None) -> bool:
        return release.wait(20)

    client = await start(hang if is_async else block, authorize_seconds=0.1)
    try:
        for path in ("/events/a", "/streams"):
            answer = await client.get(path)
            assert seen(answer) == (503, "authorize_timeout")
            assert "Retry-After" in answer.headers
    finally:
        release.set()


async def test_a_list_of_many_questions_is_bounded(start: Start, queue: WatchedQueue) -> None:
    """Each question in time may still be too long together."""
    await write(queue, *(f"s/{i}" for i in range(20)))

    async def authorize(_request: Request, stream: StreamId | None) -> bool:
        if stream is not None:
            await asyncio.sleep(0.3)
        return True

    client = await start(authorize, authorize_seconds=0.5)
    assert seen(await client.get("/streams")) == (503, "authorize_timeout")
    assert len(await listed(client, "/streams?limit=5")) == 5


async def test_an_http_exception_is_the_answer(start: Start) -> None:
    """The application decides what somebody who is not logged in hears."""

    def authorize(_request: Request, _stream: StreamId | None) -> bool:
        raise HTTPException(401, "log in first", headers={"WWW-Authenticate": "Cookie"})

    client = await start(authorize)
    for path in ("/events/a", "/streams", "/t/other/story/a"):
        answer = await client.get(path)
        assert seen(answer) == (401, "unauthorized")
        assert answer.json()["message"] == "log in first"
        assert answer.headers["WWW-Authenticate"] == "Cookie"
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("kind", ["raises", "None", "text", "list", "subclass"])
async def test_a_function_that_fails_opens_nothing(
    kind: str, start: Start, queue: WatchedQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Its text may have secrets; the log has it once, with the line of the code."""
    await write(queue, "a")

    def authorize(_request: Request, _stream: StreamId | None) -> Any:
        if kind == "raises":
            raise RuntimeError("password hunter2")
        return {"None": None, "text": "hunter2", "list": ["hunter2"], "subclass": 1}[kind]

    client = await start(authorize)
    for path in ("/events/a", "/streams"):
        caplog.clear()
        answer = await client.get(path)
        assert seen(answer) == (500, "authorize_failed")
        assert "hunter2" not in answer.text
        (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert "create_app(authorize=...)" in record.getMessage()
        if kind == "raises":
            assert "hunter2" in caplog.text  # with its traceback
            assert Path(__file__).name in caplog.text
        else:
            assert "returns True, False, permissions" in record.getMessage()


def test_what_cannot_be_a_function_is_refused(queue: WatchedQueue) -> None:
    """Before the first request, which would otherwise be answered with 500."""
    with pytest.raises(ConfigurationError, match="authorize is bool"):
        create_app(queue, OPEN, authorize=True)  # type: ignore[arg-type]
    trusting = OPEN.model_copy(update={"gateway_trust_tenants": True})
    with pytest.raises(ConfigurationError, match=r"Grant\(tenant=\.\.\.\)"):
        create_app(queue, trusting, authorize=own_chats)


async def test_in_fastapi_the_function_sees_what_middleware_has_found(
    queue: WatchedQueue,
) -> None:
    """A login by middleware is at hand: the request is that of the parent."""
    await write(queue, *STREAMS)

    def authorize(request: Request, _stream: StreamId | None) -> Any:
        return [permit("read", "list", prefix=f"chats/{request.state.user}")]

    app = FastAPI()
    app.mount("/live", create_app(queue, OPEN, authorize=authorize))

    @app.middleware("http")
    async def login(request: Request, call_next: Any) -> Any:
        request.state.user = user(request)
        return await call_next(request)

    async with serve_app(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        assert await listed(client, "/live/streams", **{"X-User": "bob"}) == ["chats/bob/1"]
        answer = await client.get("/live/events/chats/bob/1", headers={"X-User": "bob"})
        assert "secret of chats/bob/1" in answer.text
        answer = await client.get("/live/events/chats/bob/1", headers={"X-User": "ada"})
        assert seen(answer) == ABSENT
