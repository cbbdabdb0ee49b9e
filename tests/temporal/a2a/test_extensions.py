"""Extensions of A2A: agent and client agree on them for each request."""

from __future__ import annotations

from typing import Any

import grpc
import httpx
import pytest
from a2a.client import ClientCallContext
from a2a.types.a2a_pb2 import AgentExtension, GetTaskRequest, ListTasksRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from a2a.utils.errors import ExtensionSupportRequiredError
from tests.temporal.a2a.agents import Extended, card
from tests.temporal.a2a.replicas import TRANSPORTS, Stage, request

from streamq import ConfigurationError
from streamq.a2a.server import Agent

_ONE, _TWO = "https://example.org/one/v1", "https://example.org/two/v1"
_DECLARED = (AgentExtension(uri=_ONE), AgentExtension(uri=_TWO, description="The second"))
_HEADER = "A2A-Extensions"


def _naming(*uris: str) -> ClientCallContext:
    return ClientCallContext(service_parameters={_HEADER: ",".join(uris)})


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_workflow_learns_what_its_client_has_activated(
    stage: Stage, transport: str
) -> None:
    """An agent behaves as agreed, and ignores what it does not have."""
    replica = await stage.replica(workflow=Extended, extensions=_DECLARED)
    async with replica.client(transport) as client:
        naming = _naming("https://example.org/unknown", _TWO)
        events = [each async for each in client.send_message(request("a"), context=naming)]
    texts = [each.status_update.status.message.parts for each in events]
    assert [part.text for parts in texts for part in parts] == [_TWO]


async def test_the_answer_names_the_extensions_that_apply(stage: Stage) -> None:
    """A client learns whether it may count on an extension."""
    replica = await stage.replica(extensions=_DECLARED)
    headers = {"A2A-Version": "1.0", _HEADER: f"{_TWO}, {_ONE},https://example.org/unknown"}
    async with httpx.AsyncClient(base_url=replica.url) as http:
        named = await http.get("/tasks", headers=headers)
        unnamed = await http.get("/tasks", headers={"A2A-Version": "1.0"})
        public = (await http.get("/.well-known/agent-card.json")).json()
    assert named.headers[_HEADER] == f"{_ONE},{_TWO}"
    assert _HEADER not in unnamed.headers
    assert [each["uri"] for each in public["capabilities"]["extensions"]][:2] == [_ONE, _TWO]
    async with grpc.aio.insecure_channel(replica.agent.grpc_url) as channel:
        service: Any = A2AServiceStub(channel)  # type: ignore[no-untyped-call]
        call = service.ListTasks(ListTasksRequest(), metadata=((_HEADER.lower(), _ONE),))
        await call
        assert dict(await call.trailing_metadata())[_HEADER.lower()] == _ONE


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_without_a_required_extension_is_refused(
    stage: Stage, transport: str
) -> None:
    """A client that does not know the rules would misunderstand what it gets."""
    replica = await stage.replica(extensions=[AgentExtension(uri=_ONE, required=True)])
    async with replica.client(transport) as client:
        for naming in (None, _naming(_TWO)):
            with pytest.raises(ExtensionSupportRequiredError, match="one/v1"):
                _ = [each async for each in client.send_message(request("a"), context=naming)]
            with pytest.raises(ExtensionSupportRequiredError):
                await client.get_task(GetTaskRequest(id="any"), context=naming)
        found = await client.list_tasks(ListTasksRequest(), context=_naming(_ONE))
    assert found.total_size == 0


def test_an_extension_is_declared_once() -> None:
    """A mistake in the declaration shows when the agent is declared."""
    twice = card("twice")
    twice.capabilities.extensions.append(AgentExtension(uri=_ONE))
    with pytest.raises(ConfigurationError, match="one/v1"):
        Agent(card=twice, task_queue="none", activity="write", extensions=_DECLARED)
