"""Runs the SDK's own handler on two replicas over a queue, with workflows as its work."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from a2a.client.client import Client
from a2a.server.agent_execution import AgentExecutor, RequestContext
from a2a.server.events import EventQueue
from a2a.server.request_handlers.default_request_handler_v2 import DefaultRequestHandlerV2
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes
from a2a.server.tasks import TaskUpdater
from a2a.types.a2a_pb2 import (
    AgentCard,
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Part,
    StreamResponse,
    Task,
    TaskState,
)
from a2a.utils.errors import TaskNotCancelableError, TaskNotFoundError
from pydantic import SecretStr
from starlette.applications import Starlette
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError
from tests.temporal.a2a.agents import Planner, card, gate, write
from tests.temporal.a2a.replicas import (
    Stage,
    listen,
    request,
    sdk_client,
    sent,
    served,
    streamed,
    text_of,
    watch,
)
from tests.temporal.a2a.sdk_replicas import of

from streamq import Settings
from streamq.a2a.sdk import QueueTaskEventStream, QueueTaskStore, WorkflowExecutor
from streamq.a2a.server import Agent, TaskHandler
from streamq.a2a.server._resources import Resources
from streamq.access import new_secret


@dataclass
class Host:
    """A replica of the SDK's handler.

    Attributes:
        url: Where it is.
        sdk: The SDK's handler.
        store: Its tasks.
        executor: Its work, if that is a workflow.
    """

    url: str
    sdk: DefaultRequestHandlerV2
    store: QueueTaskStore
    executor: WorkflowExecutor | None = None


class Hosts:
    """Starts replicas of the SDK's handler.

    Args:
        stage: The worker and the queue.
        stack: Ends them.
    """

    def __init__(self, stage: Stage, stack: AsyncExitStack) -> None:
        self._stage, self._stack = stage, stack

    async def of_workflow(self, workflow: type | None = None, **options: Any) -> Host:
        """Start one whose work is a workflow."""
        stage = self._stage
        settings = options.pop("settings", stage.settings)
        agent = Agent(
            card=card(stage.task_queue),
            task_queue=stage.task_queue,
            heartbeat_seconds=2,
            **({"activity": write} if workflow is None else {"workflow": workflow}),
            **options,
        )
        inner = TaskHandler(
            agent, Resources(agent, client=stage.client, queue=stage.queue, settings=settings)
        )
        self._stack.push_async_callback(inner.aclose)
        executor = WorkflowExecutor(inner)
        host = await self.of(executor)
        host.executor = executor
        return host

    async def of(self, executor: AgentExecutor) -> Host:
        """Start one with an executor."""
        stage, listener = self._stage, listen()
        url = f"http://127.0.0.1:{listener.port}"
        own = _card(stage.task_queue, url)
        stop = executor.stop_work if isinstance(executor, WorkflowExecutor) else None
        store = QueueTaskStore(stage.queue, stage.settings, on_cancel=stop)
        events = QueueTaskEventStream(stage.queue, stage.settings)
        sdk = DefaultRequestHandlerV2(executor, store, own, event_stream=events)
        self._stack.push_async_callback(sdk.aclose)
        routes = [*create_agent_card_routes(own), *create_jsonrpc_routes(sdk, "/")]
        await self._stack.enter_async_context(served(Starlette(routes=routes), listener))
        return Host(url, sdk, store, executor=None)


def _card(name: str, url: str) -> AgentCard:
    found = card(name)
    found.capabilities.streaming = True
    interface = found.supported_interfaces.add()
    interface.url, interface.protocol_binding, interface.protocol_version = url, "JSONRPC", "1.0"
    return found


@pytest.fixture
async def hosts(stage: Stage) -> AsyncIterator[Hosts]:
    async with AsyncExitStack() as stack:
        yield Hosts(stage, stack)


@dataclass
class Countdown(AgentExecutor):
    """An executor that has nothing to do with Temporal."""

    name: str

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        updater = TaskUpdater(event_queue, str(context.task_id), str(context.context_id))
        if context.current_task is None:
            assert context.message is not None
            task = Task(id=updater.task_id, context_id=updater.context_id)
            task.status.state = TaskState.TASK_STATE_SUBMITTED
            task.history.append(context.message)
            await event_queue.enqueue_event(task)
            await gate(self.name).wait()
        for number in range(3):
            part = Part(text=f"{number} ")
            await updater.add_artifact([part], artifact_id="default", append=number > 0)
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """End nothing: nobody cancels here."""


@asynccontextmanager
async def _clients(*hosts: Host, streaming: bool = True) -> AsyncIterator[list[Client]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(sdk_client(host.url, streaming=streaming))
            for host in hosts
        ]


async def _has_been_cancelled(stage: Stage, task: Task) -> None:
    handle = stage.client.get_workflow_handle(str(task.metadata["streamq_task"]))
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, CancelledError)


def _state(event: StreamResponse) -> TaskState:
    return event.task.status.state if event.HasField("task") else event.status_update.status.state


async def test_an_executor_of_ones_own_is_seen_on_the_other_replica(hosts: Hosts) -> None:
    """The adapters need nothing of Temporal: any executor's events reach all replicas."""
    first, second = await hosts.of(Countdown("count")), await hosts.of(Countdown("count"))
    async with _clients(first, streaming=False) as [starter], _clients(second) as [client]:
        task = await sent(starter, request("go", at_once=True))
        watcher = watch(client, task.id)
        await watcher.until(lambda seen: len(seen) == 1)
        gate("count").set()
        events = await watcher.end()
        found = await client.get_task(GetTaskRequest(id=task.id))
    assert text_of(events) == text_of([StreamResponse(task=found)]) == "0 1 2 "
    assert _state(events[-1]) == found.status.state == TaskState.TASK_STATE_COMPLETED


async def test_a_workflow_is_seen_on_both_replicas(hosts: Hosts) -> None:
    """The replica that was asked and another one show the same text; a failed attempt is void."""
    first, second = await hosts.of_workflow(), await hosts.of_workflow()
    async with _clients(first, second) as [asker, client], _clients(first, streaming=False) as [s]:
        task = await sent(s, request("a b wait:both fail c", at_once=True))
        watchers = [watch(each, task.id) for each in (asker, client)]
        for watcher in watchers:
            await watcher.until(lambda seen: text_of(seen) == "a b ")
        gate("both").set()
        for watcher in watchers:
            events = await watcher.end()
            assert text_of(events) == "a b c "
            assert _state(events[-1]) == TaskState.TASK_STATE_COMPLETED
        found = await client.get_task(GetTaskRequest(id=task.id))
    assert text_of([StreamResponse(task=found)]) == "a b c "
    assert [each.parts[0].text for each in found.history] == ["a b wait:both fail c"]


@pytest.mark.parametrize("other", [False, True])
async def test_a_question_is_answered_on_either_replica(hosts: Hosts, other: bool) -> None:
    """The follow-up reaches the workflow, and its events the task, from any replica."""
    first, second = await hosts.of_workflow(Planner), await hosts.of_workflow(Planner)
    async with _clients(first, second if other else first) as [asker, client]:
        asked = await streamed(asker, request("plan"))
        task_id, context_id = asked[0].task.id, asked[0].task.context_id
        assert _state(asked[-1]) == TaskState.TASK_STATE_INPUT_REQUIRED
        answered = await streamed(client, request("Monday", task_id=task_id, context_id=context_id))
        found = await asker.get_task(GetTaskRequest(id=task_id))
    assert text_of(answered, "answer") == "Monday"
    assert _state(answered[-1]) == TaskState.TASK_STATE_COMPLETED
    assert found.status.state == TaskState.TASK_STATE_COMPLETED
    assert [each.artifact_id for each in found.artifacts] == ["sum", "answer"]
    told = [each.parts[0].text for each in found.history]
    assert told == ["plan", "thinking", "On which day?", "Monday"]


@pytest.mark.parametrize("other", [False, True])
async def test_cancelling_on_either_replica_cancels_the_workflow(
    hosts: Hosts, stage: Stage, other: bool
) -> None:
    """The SDK asks the executor only on the replica that runs the task; the work stops anyway."""
    first, second = await hosts.of_workflow(), await hosts.of_workflow()
    host = second if other else first
    async with _clients(first, streaming=False) as [starter], _clients(host) as [client]:
        task = await sent(starter, request(f"a wait:never{other}", at_once=True))
        watcher = watch(client, task.id)
        await watcher.until(lambda seen: text_of(seen) == "a ")
        cancelled = await client.cancel_task(CancelTaskRequest(id=task.id))
        events = await watcher.end()
        with pytest.raises(TaskNotCancelableError):
            await client.cancel_task(CancelTaskRequest(id=task.id))
    assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
    assert _state(events[-1]) == TaskState.TASK_STATE_CANCELED
    await _has_been_cancelled(stage, cancelled)


async def test_a_question_that_waits_is_cancelled(hosts: Hosts, stage: Stage) -> None:
    """Nothing runs on the replica then; the task and its workflow end all the same."""
    host = await hosts.of_workflow(Planner)
    async with _clients(host) as [client]:
        asked = await streamed(client, request("plan"))
        cancelled = await client.cancel_task(CancelTaskRequest(id=asked[0].task.id))
    assert cancelled.status.state == TaskState.TASK_STATE_CANCELED
    await _has_been_cancelled(stage, cancelled)


async def test_another_replica_resumes_what_a_dead_one_forwarded(hosts: Hosts) -> None:
    """The workflow goes on; once resumed, a subscriber gets the rest, and nothing twice."""
    first, second = await hosts.of_workflow(), await hosts.of_workflow()
    async with _clients(first, streaming=False) as [starter], _clients(second) as [client]:
        task = await sent(starter, request("a wait:one b wait:two c", at_once=True))
        watcher = watch(client, task.id)
        await watcher.until(lambda seen: text_of(seen) == "a ")
        await first.sdk.aclose()  # it forwards nothing more, and writes no ending
        gate("one").set()
        assert second.executor is not None
        gate("two").set()
        assert await second.executor.resume(task.id, second.store, of(""))
        events = await watcher.end()
        found = await client.get_task(GetTaskRequest(id=task.id))
        with pytest.raises(TaskNotFoundError):
            await second.executor.resume("unknown", second.store, of(""))
    assert text_of(events) == text_of([StreamResponse(task=found)]) == "a b c "
    assert _state(events[-1]) == TaskState.TASK_STATE_COMPLETED


async def test_a_message_goes_on_where_a_dead_replica_stopped(hosts: Hosts) -> None:
    """Nobody has to resume: what was missed comes with the answer to the next message."""
    first, second = await hosts.of_workflow(Planner), await hosts.of_workflow(Planner)
    async with _clients(first, second) as [asker, client]:
        asked = await streamed(asker, request("plan"))
        await first.sdk.aclose()
        task = asked[0].task
        further = request("Tuesday", task_id=task.id, context_id=task.context_id)
        answered = await streamed(client, further)
    assert text_of(answered, "answer") == "Tuesday"
    assert _state(answered[-1]) == TaskState.TASK_STATE_COMPLETED


async def test_a_reply_is_a_message_and_no_task(hosts: Hosts) -> None:
    """A workflow that may answer with a message does so through the SDK's handler, too."""
    host = await hosts.of_workflow(Planner, can_reply=True)
    async with _clients(host) as [client]:
        [event] = await streamed(client, request("hello"))
        found = await client.list_tasks(ListTasksRequest())
    assert event.message.parts[0].text == "hello yourself"
    assert not found.tasks


async def test_settings_for_tokens_do_not_concern_the_work_of_the_sdks_handler(
    hosts: Hosts, settings: Settings
) -> None:
    """The SDK's server has let the caller in, and its work goes on when nobody is connected."""
    keyed = settings.model_copy(update={"token_key": SecretStr(new_secret())})
    host = await hosts.of_workflow(settings=keyed)
    async with sdk_client(host.url) as client:
        assert text_of(await streamed(client, request("a b"))) == "a b "
