"""Refuses what is not possible with the error that the specification names."""

from __future__ import annotations

import json
from typing import Any

import grpc
import httpx
import pytest
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Part,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from a2a.utils.errors import (
    ContentTypeNotSupportedError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from tests.temporal.a2a.agents import Planner, gate
from tests.temporal.a2a.replicas import TRANSPORTS, Stage, request, sent, streamed, watch

_VERSION = {"A2A-Version": "1.0"}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_unknown_task_is_not_found(stage: Stage, transport: str) -> None:
    """A task that is not there, and any other workflow, looks the same: there is none."""
    replica = await stage.replica()
    other = await stage.client.start_workflow(
        "Any", id=f"other-{stage.task_queue}", task_queue=f"nobody-{stage.task_queue}"
    )
    async with replica.client(transport) as client, replica.starter(transport) as starter:
        for unknown in ("unknown", other.id, "a' OR WorkflowId != '"):
            with pytest.raises(TaskNotFoundError):
                await client.get_task(GetTaskRequest(id=unknown))
            with pytest.raises(TaskNotFoundError):
                await client.cancel_task(CancelTaskRequest(id=unknown))
            with pytest.raises(TaskNotFoundError):
                await watch(client, unknown).end()
            with pytest.raises(TaskNotFoundError):
                await sent(starter, request("hello", task_id=unknown))
    await other.terminate()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_finished_task_takes_nothing_more(stage: Stage, transport: str) -> None:
    """Nothing can be added to a task that has ended, and nothing follows it."""
    replica = await stage.replica()
    async with replica.client(transport) as client, replica.starter(transport) as starter:
        task = await sent(starter, request("a"))
        with pytest.raises(UnsupportedOperationError):
            await watch(client, task.id).end()
        with pytest.raises(UnsupportedOperationError):
            await sent(starter, request("more", task_id=task.id))
        with pytest.raises(UnsupportedOperationError):
            await streamed(client, request("more", task_id=task.id))
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(CancelTaskRequest(id=task.id))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_task_of_another_tenant_is_unknown(stage: Stage, transport: str) -> None:
    """A tenant learns nothing of another one's tasks, not even that they exist."""
    replica = await stage.replica()
    async with replica.client(transport) as client, replica.starter(transport) as starter:
        wanted = request("a wait:tenant", at_once=True)
        wanted.tenant = "one"
        task = await sent(starter, wanted)
        mine = await client.get_task(GetTaskRequest(id=task.id, tenant="one"))
        assert mine.id == task.id
        for tenant in ("", "two"):
            with pytest.raises(TaskNotFoundError):
                await client.get_task(GetTaskRequest(id=task.id, tenant=tenant))
            with pytest.raises(TaskNotFoundError):
                await client.cancel_task(CancelTaskRequest(id=task.id, tenant=tenant))
        gate("tenant").set()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_bad_message_starts_nothing(stage: Stage, transport: str) -> None:
    """A request that is refused leaves no workflow behind."""
    replica = await stage.replica()
    without_parts, too_large, image = request("a"), request("x" * 2_000_000), request("a")
    without_parts.message.ClearField("parts")
    image.message.parts.append(Part(raw=b"0", media_type="image/png"))
    negative = request("a")
    negative.configuration.history_length = -1
    async with replica.starter(transport) as starter:
        for wanted, error in (
            (without_parts, InvalidParamsError),
            (too_large, InvalidParamsError),
            (image, ContentTypeNotSupportedError),
            (negative, InvalidParamsError),
        ):
            with pytest.raises(error):
                await sent(starter, wanted)
        pushed = request("a")
        pushed.configuration.task_push_notification_config.CopyFrom(
            TaskPushNotificationConfig(url="https://10.0.0.1")
        )
        with pytest.raises(InvalidParamsError):
            await sent(starter, pushed)
    found = stage.client.list_workflows(f"TaskQueue = '{stage.task_queue}'")
    assert [each async for each in found] == []


async def test_a_message_for_another_context_is_refused(stage: Stage) -> None:
    """A message cannot move a task to another conversation."""
    replica = await stage.replica(workflow=Planner)
    async with replica.starter() as starter:
        task = await sent(starter, request("plan"))
        with pytest.raises(InvalidParamsError):
            await sent(starter, request("Friday", task_id=task.id, context_id="another"))
        done = await sent(starter, request("Friday", task_id=task.id, context_id=task.context_id))
    assert done.status.state == TaskState.TASK_STATE_COMPLETED


async def test_a_wrong_content_type_is_refused_before_it_is_read(stage: Stage) -> None:
    """A form of another site, which a browser sends unasked, never starts anything."""
    replica = await stage.replica()
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage"})
    headers = {"Content-Type": "text/plain"} | _VERSION
    async with httpx.AsyncClient(base_url=replica.url, headers=headers) as http:
        rpc = await http.post("/", content=body)
        rest = await http.post("/message:send", content=body)
    assert rpc.json()["error"]["code"] == -32005
    assert rest.status_code == 415
    assert rest.json()["error"]["details"][0]["reason"] == "CONTENT_TYPE_NOT_SUPPORTED"
    assert "not 'text/plain'" in rest.json()["error"]["message"]


async def test_the_version_may_be_in_the_query(stage: Stage) -> None:
    """A browser's EventSource cannot set headers; without a version the request is one of 0.3."""
    replica = await stage.replica()
    async with httpx.AsyncClient(base_url=replica.url) as http:
        without = await http.get("/tasks")
        wrong = await http.get("/tasks?A2A-Version=7.0")
        right = await http.get("/tasks?A2A-Version=1.0")
    assert (without.status_code, wrong.status_code, right.status_code) == (400, 400, 200)


async def test_grpc_refuses_another_version(stage: Stage) -> None:
    """A client of another version gets an error that says so, and no answer that it misreads."""
    replica = await stage.replica()
    async with grpc.aio.insecure_channel(replica.agent.grpc_url) as channel:
        service: Any = A2AServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await service.ListTasks(ListTasksRequest(), metadata=(("a2a-version", "99.0"),))
        await service.ListTasks(ListTasksRequest(), metadata=(("a2a-version", "1.0"),))
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "99.0" in str(raised.value.details())


async def test_the_card_may_be_cached(stage: Stage) -> None:
    """Clients ask for the card often; it says how long it is good, and a repeat costs nothing."""
    replica = await stage.replica()
    async with httpx.AsyncClient(base_url=replica.url) as http:
        first = await http.get("/.well-known/agent-card.json")
        tag = {"If-None-Match": first.headers["etag"]}
        again = await http.get("/.well-known/agent-card.json", headers=tag)
    assert first.headers["cache-control"] == "public, max-age=300"
    assert first.headers["last-modified"]
    assert again.status_code == 304
    bindings = [each["protocolBinding"] for each in first.json()["supportedInterfaces"]]
    assert bindings == ["JSONRPC", "HTTP+JSON", "GRPC"]


async def test_a_failure_discloses_nothing(stage: Stage) -> None:
    """What an activity fails with is for its operator: a client learns that it failed."""
    replica = await stage.replica()
    async with replica.client() as client:
        events = await streamed(client, request("a break"))
    last = events[-1].status_update.status
    assert last.state == TaskState.TASK_STATE_FAILED
    assert "secret" not in str(events)
    assert last.message.parts[0].text.startswith("The agent failed")


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_mistake_of_the_agent_discloses_nothing(stage: Stage, transport: str) -> None:
    """An exception of the code that reads a message goes to the log, not to the client."""

    def broken(_: object) -> list[str]:
        raise ValueError("the secret is 42")

    replica = await stage.replica(arguments=broken)
    async with replica.client(transport) as client, replica.starter(transport) as starter:
        for run in (streamed(client, request("a")), sent(starter, request("a"))):
            with pytest.raises(Exception) as raised:  # noqa: PT011 - the SDK's, by transport
                await run
            assert "failed to answer" in str(raised.value)
            assert "secret" not in str(raised.value)


async def test_cancelling_twice_is_refused_the_second_time(stage: Stage) -> None:
    """The first request ends the task, and the second one finds it ended."""
    replica = await stage.replica(workflow=Planner)
    async with replica.starter() as client:
        task = await sent(client, request("plan"))
        first = await client.cancel_task(CancelTaskRequest(id=task.id))
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(CancelTaskRequest(id=task.id))
    assert first.status.state == TaskState.TASK_STATE_CANCELED
