"""Holds the server to sentences with MUST of A2A 1.0, over each transport.

Each case has the id that the conformance suite of A2A gives the sentence.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
import pytest_asyncio
from a2a.client.client import Client as A2AClient
from a2a.types.a2a_pb2 import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Part,
    SendMessageRequest,
    Task,
    TaskState,
)
from a2a.utils.errors import (
    A2AError,
    ContentTypeNotSupportedError,
    InvalidParamsError,
    TaskNotCancelableError,
    TaskNotFoundError,
    UnsupportedOperationError,
)
from temporalio.client import Client
from tests.temporal.a2a.agents import Planner
from tests.temporal.a2a.replicas import (
    TRANSPORTS,
    Replica,
    Stage,
    request,
    sent,
    streamed,
    watch,
)

from streamq import load_settings
from streamq.driver import QueueOptions
from streamq.memory import MemoryDriver, MemorySettings

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def planner(temporal_address: str) -> AsyncIterator[Replica]:
    """One server and one worker for all cases."""
    client = await Client.connect(temporal_address)
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with await MemoryDriver.open(options, MemorySettings(store="musts")) as queue:
        stage = Stage(client, queue, load_settings(backend="memory"))
        try:
            async with stage.worker():
                yield await stage.replica(workflow=Planner, can_reply=True)
        finally:
            await stage.aclose()


@dataclass(frozen=True)
class Talk:
    """Both kinds of client of one agent.

    Attributes:
        plain: Does not stream.
        live: Streams.
    """

    plain: A2AClient
    live: A2AClient

    async def waiting(self) -> Task:
        """Return a task that waits for its client."""
        return await sent(self.plain, request("plan"))

    async def ended(self) -> Task:
        """Return a task that has ended."""
        return await sent(self.plain, request("reject"))


async def _refused(work: Awaitable[object], error: type[A2AError]) -> None:
    with pytest.raises(error):
        await work


async def _ended_takes_nothing(talk: Talk) -> None:
    wanted = request("more", task_id=(await talk.ended()).id)
    await _refused(sent(talk.plain, wanted), UnsupportedOperationError)


async def _media_type(talk: Talk) -> None:
    wanted = request("a")
    wanted.message.parts.append(Part(raw=b"0", media_type="application/x-unknown"))
    await _refused(sent(talk.plain, wanted), ContentTypeNotSupportedError)


async def _message_alone(talk: Talk) -> None:
    [only] = await streamed(talk.live, request("hello"))
    assert only.HasField("message")


async def _task_first(talk: Talk) -> None:
    events = await streamed(talk.live, request("reject"))
    assert [each.HasField("task") for each in events].index(True) == 0
    assert [each.HasField("task") for each in events].count(True) == 1
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_REJECTED


async def _unknown_get(talk: Talk) -> None:
    await _refused(talk.plain.get_task(GetTaskRequest(id="unknown")), TaskNotFoundError)


async def _pages(talk: Talk) -> None:
    context = uuid.uuid4().hex
    # Tasks that wait: one that ends between two pages moves in Temporal's list.
    tasks = [await sent(talk.plain, request("plan", context_id=context)) for _ in "ab"]
    await _listed(talk, tasks)
    seen, token = [], ""
    for _ in tasks:
        wanted = ListTasksRequest(context_id=context, page_size=1, page_token=token)
        found = await talk.plain.list_tasks(wanted)
        seen += [each.id for each in found.tasks]
        token = found.next_page_token
        assert len(found.tasks) == 1
    assert token == ""
    assert {each.id for each in tasks} == set(seen)


async def _no_artifacts(talk: Talk) -> None:
    done = await sent(talk.plain, request("Friday", task_id=(await talk.waiting()).id))
    assert done.artifacts
    [found] = await _listed(talk, [done])
    assert not found.artifacts


async def _listed(talk: Talk, tasks: list[Task]) -> list[Task]:
    """Return these tasks from the list of their context, once Temporal shows all of them."""
    wanted = ListTasksRequest(context_id=tasks[0].context_id)
    async with asyncio.timeout(20):
        while True:
            found = list((await talk.plain.list_tasks(wanted)).tasks)
            if {each.id for each in found} == {each.id for each in tasks}:
                return found
            await asyncio.sleep(0.05)


async def _cancel_ended(talk: Talk) -> None:
    task = await talk.ended()
    await _refused(talk.plain.cancel_task(CancelTaskRequest(id=task.id)), TaskNotCancelableError)


async def _cancel_unknown(talk: Talk) -> None:
    await _refused(talk.plain.cancel_task(CancelTaskRequest(id="unknown")), TaskNotFoundError)


async def _waits(talk: Talk) -> None:
    assert (await talk.waiting()).status.state == TaskState.TASK_STATE_INPUT_REQUIRED
    assert (await talk.ended()).status.state == TaskState.TASK_STATE_REJECTED


async def _empty_request(talk: Talk) -> None:
    await _refused(sent(talk.plain, SendMessageRequest()), InvalidParamsError)


async def _new_context(talk: Talk) -> None:
    first, second = await talk.ended(), await talk.ended()
    assert first.context_id != second.context_id
    assert first.context_id
    assert first.id != second.id


async def _unknown_task_in_message(talk: Talk) -> None:
    await _refused(sent(talk.plain, request("a", task_id="unknown")), TaskNotFoundError)


async def _inferred_context(talk: Talk) -> None:
    task = await talk.waiting()
    done = await sent(talk.plain, request("Friday", task_id=task.id))
    assert done.context_id == task.context_id


async def _wrong_context(talk: Talk) -> None:
    wanted = request("Friday", task_id=(await talk.waiting()).id, context_id="another")
    await _refused(sent(talk.plain, wanted), InvalidParamsError)


async def _short_history(talk: Talk) -> None:
    task = await talk.waiting()
    found = await talk.plain.get_task(GetTaskRequest(id=task.id, history_length=1))
    assert len(found.history) == 1


async def _same_for_all(talk: Talk) -> None:
    task = await talk.waiting()
    watchers = [watch(talk.live, task.id) for _ in range(3)]
    for each in watchers:
        await each.until(bool)
    assert all(each.seen[0].task.id == task.id for each in watchers)
    watchers[0].stop()
    await talk.plain.cancel_task(CancelTaskRequest(id=task.id))
    one, other = [await each.end() for each in watchers[1:]]
    assert one == other
    assert one[-1].status_update.status.state == TaskState.TASK_STATE_CANCELED


async def _subscribe_ended(talk: Talk) -> None:
    await _refused(watch(talk.live, (await talk.ended()).id).end(), UnsupportedOperationError)


async def _subscribe_unknown(talk: Talk) -> None:
    await _refused(watch(talk.live, "unknown").end(), TaskNotFoundError)


_CASES: dict[str, Callable[[Talk], Awaitable[None]]] = {
    "CORE-SEND-002 a message to a task that has ended is an unsupported operation": (
        _ended_takes_nothing
    ),
    "CORE-SEND-003 a media type that the agent does not support is refused": _media_type,
    "CORE-STREAM-002 a stream with a message has that message only": _message_alone,
    "CORE-STREAM-003 a stream begins with the task and closes with its end": _task_first,
    "CORE-GET-002 getting an unknown task is not found": _unknown_get,
    "CORE-LIST-002 a list has pages, the last without a token": _pages,
    "CORE-LIST-005 a list has no artifacts unless asked": _no_artifacts,
    "CORE-CANCEL-002 a task that has ended is not cancelable": _cancel_ended,
    "CORE-CANCEL-003 cancelling an unknown task is not found": _cancel_unknown,
    "CORE-EXECUTION-MODE-001 a blocking request waits for an end or a question": _waits,
    "CORE-ERR-002 parameters are validated before processing": _empty_request,
    "CORE-MULTI-001a a new context id is in the answer, CORE-MULTI-003 ids are unique": (
        _new_context
    ),
    "CORE-MULTI-004 a message for an unknown task is not found": _unknown_task_in_message,
    "CORE-MULTI-005 the context is inferred from the task": _inferred_context,
    "CORE-MULTI-006 a context that is not the task's is refused": _wrong_context,
    "CORE-HIST-002 no more history than asked for": _short_history,
    "STREAM-ORDER-002 STREAM-ORDER-003 STREAM-ORDER-004 STREAM-SUB-001 STREAM-SUB-002 all "
    "streams begin with the task and bring the same events to its end": _same_for_all,
    "STREAM-SUB-003 subscribing to a task that has ended is unsupported": _subscribe_ended,
    "STREAM-SUB-004 subscribing to an unknown task is not found": _subscribe_unknown,
}


@pytest.mark.parametrize("case", list(_CASES))
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_the_specification_demands(planner: Replica, transport: str, case: str) -> None:
    """An agent that misses one of these sentences is none that clients can rely on."""
    async with planner.starter(transport) as plain, planner.client(transport) as live:
        await _CASES[case](Talk(plain, live))
