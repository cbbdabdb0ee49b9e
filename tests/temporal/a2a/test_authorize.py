"""A function of the application, or a setting, says what callers without a token may do."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest
from a2a.server.routes import create_rest_routes
from a2a.types.a2a_pb2 import CancelTaskRequest, GetTaskRequest, ListTasksRequest
from a2a.utils.errors import InternalError, TaskNotFoundError
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from tests.temporal.a2a.agents import card, gate
from tests.temporal.a2a.replicas import TRANSPORTS, Stage, request, sent
from tests.temporal.a2a.test_access import status, token

from streamq import Settings, StreamId
from streamq.a2a.server import Agent, TaskHandler, create_app
from streamq.a2a.server._resources import Resources
from streamq.access import Grant, new_secret, permit
from streamq.gateway import token_rights


def _by_header(request: Request, stream: StreamId | None) -> Grant:
    """Say who a request is from by a header, which gRPC has as metadata."""
    user = request.headers.get("authorization", "").removeprefix("Bearer ")
    if not user:
        raise HTTPException(401, "log in first")
    if user == "reader":
        return Grant([permit("read", every=True)], subject="ada")
    return Grant(True, subject=user, tenant="acme")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_applications_own_function_says_who_calls_and_what_he_may_do(
    stage: Stage, transport: str
) -> None:
    """An application that has a login already needs no tokens, and one function for all."""
    own: dict[str, Any] = {"authorize": _by_header, "card": card("own")}
    scheme = own["card"].security_schemes["login"].http_auth_security_scheme
    scheme.scheme = "Bearer"
    own["card"].security_requirements.add().schemes["login"].SetInParent()
    replica = await stage.replica(**own)
    async with replica.starter(transport, token="ada") as ada:
        task = await sent(ada, request(f"a wait:own-{transport}", at_once=True))
        assert (await ada.get_task(GetTaskRequest(id=task.id))).id == task.id
        assert (await ada.get_task(GetTaskRequest(id=task.id, tenant="acme"))).id == task.id
        with pytest.raises(TaskNotFoundError):
            await ada.get_task(GetTaskRequest(id=task.id, tenant="other"))
    async with replica.starter(transport, token="eve") as eve:
        with pytest.raises(TaskNotFoundError):
            await eve.cancel_task(CancelTaskRequest(id=task.id))
    async with replica.starter(transport, token="reader") as reader:
        assert await status(sent(reader, request("a"))) == 403
    async with replica.starter(transport) as nobody:
        assert await status(nobody.list_tasks(ListTasksRequest())) == 401
    gate(f"own-{transport}").set()


async def test_a_function_beside_tokens_narrows_them(stage: Stage, settings: Settings) -> None:
    """Token and application both have to permit what is done, with each task of its own."""
    keyed = settings.model_copy(update={"token_key": SecretStr(new_secret())})
    hidden: set[str] = set()
    seen: list[str | None] = []

    async def authorize(request: Request, stream: StreamId | None) -> bool:
        rights = token_rights(request)
        seen.append(None if rights is None else rights.subject)
        return stream is None or stream.name.split("/")[0] not in hidden

    replica = await stage.replica(authorize=authorize, settings=keyed)
    async with replica.starter(token=token(keyed)) as client:
        first = request("a", context_id="one")
        task, other = await sent(client, first), await sent(client, request("a"))
        hidden.add(task.id)
        with pytest.raises(TaskNotFoundError):
            await sent(client, first)
        with pytest.raises(TaskNotFoundError):
            await client.get_task(GetTaskRequest(id=task.id))
        assert (await client.get_task(GetTaskRequest(id=other.id))).id == other.id
        listed = await client.list_tasks(ListTasksRequest())
    assert task.id not in {each.id for each in listed.tasks}
    assert set(seen) == {"ada"}


async def test_a_function_that_fails_opens_nothing(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A mistake in it goes to the log; the caller learns nothing of it."""

    def authorize(request: Request, stream: StreamId | None) -> bool:
        raise ValueError("the secret is 42")

    replica = await stage.replica(authorize=authorize)
    async with replica.starter() as client:
        with pytest.raises(InternalError) as raised:
            await client.get_task(GetTaskRequest(id="any"))
    assert "secret" not in str(raised.value)
    assert "the secret is 42" in caplog.text


async def test_the_setting_for_requests_without_a_token_closes_or_narrows(
    stage: Stage, settings: Settings
) -> None:
    """A server that is closed, or open for reading only, is so for messages, too."""
    keyed = settings.model_copy(update={"token_key": SecretStr(new_secret())})
    closed = settings.model_copy(update={"gateway_anonymous": "nothing"})
    replica = await stage.replica(settings=closed)
    async with replica.starter() as client:
        assert await status(client.list_tasks(ListTasksRequest())) == 403
        assert await status(sent(client, request("a"))) == 403
    for base, refusal in ((settings, 403), (keyed, 401)):
        reading = base.model_copy(update={"gateway_anonymous": "read,list"})
        replica = await stage.replica(settings=reading)
        async with replica.starter() as client:
            assert (await client.list_tasks(ListTasksRequest())).total_size == 0
            assert await status(sent(client, request("a"))) == refusal


async def test_routes_of_the_sdk_are_held_to_tokens_too(stage: Stage, settings: Settings) -> None:
    """Whoever builds the routes by himself cannot forget the token."""
    keyed = settings.model_copy(update={"token_key": SecretStr(new_secret())})
    agent = Agent(card=card("own"), task_queue="none", activity="write")
    connections: dict[str, Any] = {"client": stage.client, "queue": stage.queue}
    handler = TaskHandler(agent, Resources(agent, settings=keyed, **connections))
    transport = httpx.ASGITransport(Starlette(routes=create_rest_routes(handler)))
    bearer = {"Authorization": f"Bearer {token(keyed)}"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://own", headers={"A2A-Version": "1.0"}
    ) as http:
        without, right = await http.get("/tasks"), await http.get("/tasks", headers=bearer)
    await handler.aclose()
    assert (without.status_code, right.status_code) == (401, 200)


def test_an_open_server_says_so(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever forgets the settings for tokens reads it in the log, unless he means it."""
    agent = Agent(card=card("open"), task_queue="none", activity="write")
    with caplog.at_level(logging.WARNING, "streamq.a2a"):
        create_app(agent, settings=settings.model_copy(update={"gateway_anonymous": "read"}))
        create_app(agent, settings=settings, authorize=_by_header)
        assert not caplog.records
        create_app(agent, settings=settings)
    assert "whoever reaches agent open" in caplog.text
