"""``POST /cancel/NAME``: stops what produces a stream, and nothing else."""

from __future__ import annotations

import asyncio
import importlib.util
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import CancelledError
from temporalio.worker import Worker
from tests.temporal.support.firing_workflows import Fires, stay
from tests.temporal.support.standalone import begin, cause_of

from streamq import Settings, StreamId, StreamWriter, load_settings, open_writer
from streamq.access import mint_token, new_secret
from streamq.driver import ChunkQueue
from streamq.driver_parts import _temporal_target
from streamq.gateway import create_app, serve
from streamq.temporal import (
    StreamqPlugin,
    activity_stream_name,
    find_stream_name,
    stream_name,
    streaming_activity,
)
from streamq.temporal._workflow_runs import was_chain_cancelled

_SECRET = new_secret()
_LIMIT = 60.0


@pytest.fixture
def settings(temporal_address: str) -> Settings:
    return load_settings(
        backend="memory",
        retry_seconds=5,
        idle_seconds=20,
        cancel_seconds=0.2,
        token_key=_SECRET,
        gateway_cancel_tenants="default",
        temporal_address=temporal_address,
    )


@streaming_activity
async def chatter(stream: StreamWriter) -> None:
    """Stream for ever."""
    while True:
        await stream.send_chunk("word ")
        await asyncio.sleep(0.02)


@workflow.defn(sandboxed=False)
class Waits:
    """Calls the activity when it is told to, and ends in its own time if it is cancelled."""

    def __init__(self) -> None:
        self._may_begin = False

    @workflow.signal
    def begin(self) -> None:
        """Call the activity."""
        self._may_begin = True

    @workflow.run
    async def run(self, at_once: bool) -> None:
        """Run."""
        await workflow.wait_condition(lambda: at_once or self._may_begin)
        await workflow.execute_activity(
            chatter,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


@workflow.defn(sandboxed=False)
class GoesOnAnew:
    """Continues as new while its stream is written by a later run."""

    @workflow.run
    async def run(self, left: int) -> None:
        """Run."""
        if left:
            workflow.continue_as_new(left - 1)
        await workflow.execute_activity(
            chatter,
            start_to_close_timeout=timedelta(minutes=1),
            heartbeat_timeout=timedelta(seconds=10),
        )


@pytest.fixture
async def worker(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> AsyncIterator[Worker]:
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[Waits, GoesOnAnew, Fires],
        activities=[chatter, stay],
        plugins=[StreamqPlugin(queue, settings)],
    ) as running:
        yield running


@asynccontextmanager
async def gateway(queue: ChunkQueue, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        serve(create_app(queue, settings)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=_LIMIT) as client,
    ):
        yield client


def bearer(settings: Settings, **given: Any) -> dict[str, str]:
    given.setdefault("every", not given.keys() & {"stream", "workflow", "prefix"})
    return {"Authorization": f"Bearer {mint_token(settings=settings, **given)}"}


async def cancel(
    client: httpx.AsyncClient, name: str, headers: dict[str, str], query: str = ""
) -> httpx.Response:
    return await client.post(f"/cancel/{quote(name, safe='')}{query}", headers=headers)


async def written(client: httpx.AsyncClient, name: str, headers: dict[str, str]) -> None:
    """Wait until a stream has a chunk."""
    async with asyncio.timeout(_LIMIT):
        while True:
            answer = await client.get(f"/streams/{quote(name, safe='')}", headers=headers)
            if answer.status_code == 200 and answer.json()["offset"]:
                return
            await asyncio.sleep(0.05)


async def state_of(handle: WorkflowHandle[Any, Any]) -> str:
    status = (await handle.describe()).status
    assert status is not None
    return status.name


async def begun(
    client: Client, task_queue: str, workflow_id: str, *, at_once: bool = True
) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(Waits.run, at_once, id=workflow_id, task_queue=task_queue)


@pytest.mark.usefixtures("worker")
async def test_a_workflow_is_cancelled_once_and_not_its_successor(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """A user who presses stop twice must not stop what was started in between."""
    workflow_id = f"chat/{uuid.uuid4().hex}"
    handle = await begun(client, task_queue, workflow_id)
    name = await find_stream_name(handle)
    async with gateway(queue, settings) as http:
        user = bearer(settings, workflow=workflow_id)
        await written(http, name, user)
        refused = await cancel(http, name, bearer(settings, stream=name, actions=["read"]))
        assert (refused.status_code, refused.json()["error"]) == (403, "insufficient_scope")
        other = await cancel(http, name, bearer(settings, workflow="other"))
        assert (other.status_code, other.json()["error"]) == (404, "stream_not_found")
        assert await state_of(handle) == "RUNNING"
        answer = await cancel(http, name, user)
        found = answer.json()
        assert (answer.status_code, found["state"], found["cancel_requested"]) == (
            200,
            "CANCELLED",
            True,
        )
        assert found["seal"]["state"] == "CANCELLED"
        assert "cancelled" in found["seal"]["message"]  # and not only that the workflow has ended
        assert found["execution"] == {
            "kind": "workflow",
            "id": workflow_id,
            "run_id": handle.result_run_id,
        }
        with pytest.raises(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), _LIMIT)
        assert handle.result_run_id is not None
        assert await was_chain_cancelled(client, workflow_id, handle.result_run_id)
        later = await begun(client, task_queue, workflow_id)
        again = await cancel(http, name, user)
        assert (again.status_code, again.json()["cancel_requested"]) == (200, False)
        await queue.delete(
            StreamId(settings.tenant, name)
        )  # and also where the stream shows nothing
        gone = await cancel(http, name, user, "?wait=0")
        assert (gone.status_code, gone.json()["state"]) == (202, "ABSENT")
        assert gone.json()["cancel_requested"] is False
        await written(http, await find_stream_name(later), user)
        assert await state_of(later) == "RUNNING"
        await later.terminate()
        assert later.result_run_id is not None
        for run_id in (handle.result_run_id, later.result_run_id):  # of the newest chain only
            assert not await was_chain_cancelled(client, workflow_id, run_id)


@pytest.mark.usefixtures("worker")
async def test_a_producer_is_stopped_before_it_has_opened_its_stream(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The answer says that there is no stream yet; another tenant stops nothing."""
    workflow_id = f"wf-{uuid.uuid4().hex}"
    handle = await begun(client, task_queue, workflow_id, at_once=False)
    name = await find_stream_name(handle)
    async with gateway(queue, settings) as http:
        foreign = await cancel(http, name, bearer(settings, tenant="acme"))
        assert (foreign.status_code, foreign.json()["error"]) == (501, "cancel_unavailable")
        assert await state_of(handle) == "RUNNING"
        answer = await cancel(http, name, bearer(settings), "?wait=0")
        assert (answer.status_code, answer.json()["state"]) == (202, "ABSENT")
        assert answer.json()["cancel_requested"] is True
        with pytest.raises(WorkflowFailureError) as caught:
            await asyncio.wait_for(handle.result(), _LIMIT)
        assert isinstance(caught.value.cause, CancelledError)


@pytest.mark.usefixtures("worker")
async def test_a_tenant_cancels_no_workflow_of_another_one(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """Whoever knows a run needs no stream for it, or writes one of its name in a tenant of theirs.

    Only a setting can say that all workflows of a namespace are of a tenant.
    """
    handle = await begun(client, task_queue, f"wf-{uuid.uuid4().hex}", at_once=False)
    name = await find_stream_name(handle)
    unset = settings.model_copy(update={"gateway_cancel_tenants": ""})
    theirs = settings.model_copy(update={"gateway_cancel_tenants": "globex"})
    shared = settings.model_copy(update={"gateway_cancel_tenants": "globex, acme"})
    async with open_writer(StreamId("acme", name), queue=queue, settings=settings) as writer:
        await writer.send_chunk("mine")
        await writer.flush()
        for given in (unset, theirs):
            async with gateway(queue, given) as http:
                for tenant in ("default", "acme"):
                    headers = bearer(settings, tenant=tenant)
                    for path in (f"/cancel/{quote(name, safe='')}", f"/t/{tenant}/cancel/{name}"):
                        answer = await http.post(path, headers=headers)
                        found = answer.json()
                        assert (answer.status_code, found["error"]) == (501, "cancel_unavailable")
                        assert "STREAMQ_GATEWAY_CANCEL_TENANTS=" in found["message"]
        async with gateway(queue, shared) as http:
            answer = await cancel(http, name, bearer(settings, tenant="globex"))
            assert (answer.status_code, answer.json()["error"]) == (404, "stream_not_found")
            assert await state_of(handle) == "RUNNING"
            answer = await cancel(http, name, bearer(settings, tenant="acme"), "?wait=0")
            assert (answer.status_code, answer.json()["cancel_requested"]) == (202, True)


@pytest.mark.usefixtures("worker")
async def test_a_later_run_of_the_chain_is_cancelled(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """The stream is named after the first run, and another one writes it."""
    handle = await client.start_workflow(
        GoesOnAnew.run, 2, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
    )
    name = await find_stream_name(handle)
    async with gateway(queue, settings) as http:
        user = bearer(settings)
        await written(http, name, user)
        answer = await cancel(http, name, user)
        assert (answer.status_code, answer.json()["state"]) == (200, "CANCELLED")


@pytest.mark.usefixtures("worker")
async def test_another_firing_of_a_cron_schedule_is_not_cancelled(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str
) -> None:
    """For Temporal all firings are one chain; each has a stream of its own, and its own stop."""
    workflow_id = f"cron-{uuid.uuid4().hex}"
    handle = await client.start_workflow(
        Fires.run, "staying", id=workflow_id, task_queue=task_queue, cron_schedule="@every 1s"
    )
    first = name = await find_stream_name(handle)
    async with asyncio.timeout(_LIMIT):
        while name == first:
            await asyncio.sleep(0.1)
            name = await find_stream_name(workflow_id, client=client)
    async with gateway(queue, settings) as http:
        user = bearer(settings)
        await written(http, name, user)
        before = await cancel(http, first, user, "?wait=0")
        assert (before.status_code, before.json()["cancel_requested"]) == (202, False)
        answer = await cancel(http, name, user)
        assert (answer.status_code, answer.json()["state"]) == (200, "CANCELLED")


async def test_an_activity_without_a_workflow_is_cancelled(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, worker: Worker
) -> None:
    """And the activity of the same id that runs later goes on."""
    options = {"heartbeat_timeout": timedelta(seconds=10)}
    handle = await begin(client, task_queue, chatter, id="act", **options)
    name = activity_stream_name("act", str(handle.run_id))
    async with gateway(queue, settings) as http:
        user = bearer(settings)
        await written(http, name, user)
        answer = await cancel(http, name, user)
        assert (answer.status_code, answer.json()["state"]) == (200, "CANCELLED")
        assert answer.json()["execution"]["kind"] == "activity"
        assert isinstance(await cause_of(handle), CancelledError)
        later = await begin(client, task_queue, chatter, id="act", **options)
        await written(http, activity_stream_name("act", str(later.run_id)), user)
        await queue.delete(StreamId(settings.tenant, name))
        gone = await cancel(http, name, user, "?wait=0")
        assert (gone.status_code, gone.json()["cancel_requested"]) == (202, False)
        await later.terminate()


async def test_what_has_nothing_behind_it_is_a_conflict(
    client: Client, queue: ChunkQueue, settings: Settings
) -> None:
    """A stream without Temporal, or of a run that Temporal does not know."""
    unknown = stream_name(f"wf-{uuid.uuid4().hex}", str(uuid.uuid4()))
    async with gateway(queue, settings) as http:
        for name, why in (("plain", "not named after"), (unknown, "does not know")):
            async with open_writer(name, queue=queue, settings=settings) as writer:
                await writer.send_chunk("x")
                await writer.flush()
                answer = await cancel(http, name, bearer(settings))
                assert (answer.status_code, answer.json()["error"]) == (409, "not_cancellable")
                assert why in answer.json()["message"]
            bad = await cancel(http, name, bearer(settings), "?wait=61")
            assert bad.status_code == 400


async def test_without_temporal_the_answer_says_what_is_missing(
    queue: ChunkQueue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway itself needs none: it says so only when it is asked to cancel."""
    name = stream_name("wf", str(uuid.uuid4()))
    for variable in ("TEMPORAL_ADDRESS", "STREAMQ_TEMPORAL_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    given = {"backend": "memory", "token_key": _SECRET, "gateway_cancel_tenants": "default"}
    monkeypatch.setattr(_temporal_target, "DEFAULT_TEMPORAL_ADDRESS", settings.temporal_address)
    usual = load_settings(**given)
    away = load_settings(**given, temporal_address="127.0.0.1:9")
    async with gateway(queue, usual) as http:  # as every other part of streamq
        answer = await cancel(http, name, bearer(settings))
        assert (answer.status_code, answer.json()["error"]) == (409, "not_cancellable")
    async with gateway(queue, away) as http:
        answer = await cancel(http, name, bearer(settings))
        assert (answer.status_code, answer.json()["error"]) == (503, "temporal_unavailable")
        assert "127.0.0.1" not in answer.text
        assert "Retry-After" in answer.headers
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "temporalio" else find(name)
    )
    async with gateway(queue, settings) as http:
        answer = await cancel(http, name, bearer(settings))
        assert (answer.status_code, answer.json()["error"]) == (501, "cancel_unavailable")
        assert "streamq[temporal]" in answer.json()["message"]
