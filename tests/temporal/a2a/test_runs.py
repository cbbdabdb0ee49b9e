"""Tasks whose workflow has several runs: continued as new, retried, reset."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from a2a.client.client import Client as A2AClient
from a2a.types.a2a_pb2 import (
    GetTaskRequest,
    ListTasksRequest,
    ListTasksResponse,
    StreamResponse,
    Task,
    TaskState,
)
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.common import RetryPolicy
from tests.temporal.a2a.agents import Flaky, Planner, Relay, gate
from tests.temporal.a2a.replicas import (
    Stage,
    generations,
    request,
    sent,
    streamed,
    text_of,
    watch,
)

_SOON = RetryPolicy(initial_interval=timedelta(milliseconds=1), maximum_attempts=3)


def _is_dense(events: list[StreamResponse]) -> bool:
    numbers = generations(events)
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def _said(task: Task) -> list[str]:
    return [each.parts[0].text for each in task.history]


async def _run_id(stage: Stage, task_id: str) -> str:
    return str((await stage.client.get_workflow_handle(task_id).describe()).run_id)


async def test_a_task_goes_on_when_its_workflow_continues_as_new(stage: Stage) -> None:
    """A conversation of months has a short history: clients see one task and one log."""
    replica = await stage.replica(workflow=Relay)
    async with replica.starter() as starter, replica.client() as client:
        task = await sent(starter, request("go"))
        watcher = watch(client, task.id)
        await watcher.until(bool)
        first = await _run_id(stage, task.id)
        await sent(starter, request("a", task_id=task.id))
        await sent(starter, request("b", task_id=task.id))
        done = await sent(starter, request("stop", task_id=task.id))
        events = await watcher.end()
        found = await client.get_task(GetTaskRequest(id=task.id))
    assert await _run_id(stage, task.id) != first
    assert _is_dense(events)
    assert text_of(events, "turn-1") == "a "
    assert text_of(events, "turn-2") == "b "
    assert done.status.state == TaskState.TASK_STATE_COMPLETED
    assert found.history == done.history
    assert _said(done) == ["go", "question 1", "a", "question 2", "b", "question 3", "stop"]


async def test_a_message_that_was_not_taken_is_in_the_next_run(stage: Stage) -> None:
    """A client that writes while the agent works is heard, although another run answers."""
    replica = await stage.replica(workflow=Relay)
    async with replica.starter() as client:
        task = await sent(client, request("go"))
        await sent(client, request("a wait:pending", task_id=task.id, at_once=True))
        await sent(client, request("stop", task_id=task.id, at_once=True))
        gate("pending").set()
        await stage.client.get_workflow_handle(task.id).result()
        found = await client.get_task(GetTaskRequest(id=task.id))
    assert found.status.state == TaskState.TASK_STATE_COMPLETED
    assert _said(found) == ["go", "question 1", "a wait:pending", "stop"]


async def test_a_retried_workflow_replaces_what_its_first_run_streamed(stage: Stage) -> None:
    """A run that fails and will be retried ends nothing: the next one is a new attempt."""
    replica = await stage.replica(workflow=Flaky, retry_policy=_SOON)
    async with replica.client() as client:
        events = await streamed(client, request("a fail b c"))
        found = await client.get_task(GetTaskRequest(id=events[0].task.id))
    assert _is_dense(events)
    assert text_of(events) == "a b c "
    updates = [each.artifact_update for each in events if each.HasField("artifact_update")]
    assert [each.append for each in updates].count(False) == 2
    states = [each.status_update.status.state for each in events if each.HasField("status_update")]
    assert TaskState.TASK_STATE_FAILED not in states
    assert states[-1] == TaskState.TASK_STATE_COMPLETED
    assert _said(found) == ["a fail b c", "run 1", "run 2"]
    assert [part.text for part in found.artifacts[0].parts] == ["a b c "]


async def test_a_workflow_that_fails_each_time_fails_its_task_once(stage: Stage) -> None:
    """The last run that the retry policy permits ends the task, and only that one."""
    replica = await stage.replica(max_attempts=1, retry_policy=_SOON)
    async with replica.client() as client:
        events = await streamed(client, request("a break"))
    assert _is_dense(events)
    assert text_of(events) == "a "
    states = [each.status_update.status.state for each in events if each.HasField("status_update")]
    assert states.count(TaskState.TASK_STATE_FAILED) == 1
    assert states[-1] == TaskState.TASK_STATE_FAILED
    assert states.count(TaskState.TASK_STATE_WORKING) == 3


async def test_a_list_has_a_task_of_several_runs_once(stage: Stage) -> None:
    """Temporal lists every run of a workflow: clients see tasks, each as it is now."""
    relay = await stage.replica(workflow=Relay)
    flaky = await stage.replica(workflow=Flaky, retry_policy=_SOON)
    async with relay.starter() as one, flaky.starter() as other:
        task = await sent(one, request("go"))
        await sent(one, request("a", task_id=task.id))
        retried = await sent(other, request("a fail b"))
        found = await _listed(one, 2)
    assert {each.id: each.status.state for each in found.tasks} == {
        task.id: TaskState.TASK_STATE_INPUT_REQUIRED,
        retried.id: TaskState.TASK_STATE_COMPLETED,
    }
    assert len(found.tasks) == 2


async def _listed(client: A2AClient, count: int) -> ListTasksResponse:
    """Return the list once it has so many tasks."""
    async with asyncio.timeout(20):
        while True:
            found = await client.list_tasks(ListTasksRequest())
            if len({each.id for each in found.tasks}) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_a_reset_tells_nothing_twice(stage: Stage) -> None:
    """What clients have seen stays: a run that was reset goes on after what it had told."""
    replica = await stage.replica(workflow=Planner)
    async with replica.starter() as starter, replica.client() as client:
        task = await sent(starter, request("plan"))
        watcher = watch(client, task.id)
        await watcher.until(bool)
        await _reset(stage, task.id)
        done = await sent(starter, request("Friday", task_id=task.id))
        events = await watcher.end()
    assert done.status.state == TaskState.TASK_STATE_COMPLETED
    assert _is_dense(events)
    assert _said(done) == ["plan", "thinking", "On which day?", "Friday"]


async def _reset(stage: Stage, task_id: str) -> None:
    """Reset a workflow to its first workflow task."""
    handle = stage.client.get_workflow_handle(task_id)
    completed = [
        each.event_id
        async for each in handle.fetch_history_events()
        if each.event_type is EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    await stage.client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=stage.client.namespace,
            workflow_execution=WorkflowExecution(
                workflow_id=task_id, run_id=await _run_id(stage, task_id)
            ),
            reason="a test",
            workflow_task_finish_event_id=completed[0],
            request_id=task_id,
        )
    )
