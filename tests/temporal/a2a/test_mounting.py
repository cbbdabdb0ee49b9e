"""An agent inside another application, below a path of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from a2a.types.a2a_pb2 import GetTaskRequest, TaskState
from fastapi import FastAPI
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.temporal.a2a.agents import card, write
from tests.temporal.a2a.replicas import (
    Stage,
    listen,
    request,
    sdk_client,
    sent,
    served,
    streamed,
    text_of,
)
from tests.temporal.a2a.test_access import status, token

from streamq import Settings
from streamq.a2a.server import Agent, create_app
from streamq.access import new_secret


def _in_starlette(inner: Starlette, lifespan: Any) -> Any:
    return Starlette(routes=[Mount("/agents/one", app=inner)], lifespan=lifespan)


def _in_fastapi(inner: Starlette, lifespan: Any) -> Any:
    outer = FastAPI(lifespan=lifespan)
    outer.mount("/agents/one", inner)
    return outer


@pytest.mark.parametrize("mounted", [_in_starlette, _in_fastapi])
@pytest.mark.parametrize("transport", ["JSONRPC", "HTTP+JSON"])
async def test_a_client_finds_an_agent_below_a_path(
    stage: Stage, settings: Settings, mounted: Any, transport: str
) -> None:
    """The card is below the path, names it, and every operation works there, with tokens."""
    keyed = settings.model_copy(update={"token_key": SecretStr(new_secret())})
    listener = listen()
    url = f"http://127.0.0.1:{listener.port}/agents/one"
    agent = Agent(card=card("mounted"), task_queue=stage.task_queue, activity=write, url=url)
    inner = create_app(agent, client=stage.client, queue=stage.queue, settings=keyed)
    closed: list[bool] = []

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await inner.state.handler.aclose()
        closed.append(True)

    async with served(mounted(inner, lifespan), listener):
        ada = token(keyed)
        async with sdk_client(url, transport, token=ada) as client:
            assert text_of(await streamed(client, request("a b"))) == "a b "
        async with sdk_client(url, transport, token=ada, streaming=False) as client:
            task = await sent(client, request("a"))
            assert (await client.get_task(GetTaskRequest(id=task.id))).id == task.id
        assert task.status.state == TaskState.TASK_STATE_COMPLETED
        async with sdk_client(url, transport) as client:
            assert await status(client.get_task(GetTaskRequest(id=task.id))) == 401
    assert closed == [True]
