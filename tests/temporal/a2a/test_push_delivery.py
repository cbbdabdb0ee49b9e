"""Push notifications arrive: each event in its order, until the task has ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from a2a.types.a2a_pb2 import (
    AuthenticationInfo,
    DeleteTaskPushNotificationConfigRequest,
    TaskState,
)
from starlette.responses import Response, StreamingResponse
from temporalio.client import WorkflowHandle
from tests.temporal.a2a.agents import Planner, gate
from tests.temporal.a2a.receivers import Got, Receiver, push_settings, receiving
from tests.temporal.a2a.replicas import (
    TRANSPORTS,
    Stage,
    generations,
    listen,
    request,
    sent,
    streamed,
    text_of,
    watch,
)

from streamq import Settings
from streamq.a2a._push_config import push_workflow_id


@pytest.fixture
def settings() -> Settings:
    return push_settings(a2a_push_timeout_seconds=2)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_receiver_named_with_the_message_gets_the_stream(
    stage: Stage, transport: str
) -> None:
    """It gets what a client that streams gets, in the same order, with what it wants as headers."""
    replica = await stage.replica()
    async with receiving() as receiver, replica.client(transport) as client:
        wanted = request("a b fail c")
        wanted.configuration.task_push_notification_config.CopyFrom(
            receiver.config(
                id="mine",
                token="a-token",
                authentication=AuthenticationInfo(scheme="Bearer", credentials="secret"),
            )
        )
        seen = await streamed(client, wanted)
        pushed = await receiver.end()
    assert receiver.most_open == 1
    assert pushed[1:] == seen[1:]
    assert pushed[0].task.status.state == TaskState.TASK_STATE_SUBMITTED
    assert pushed[0].task.history == seen[0].task.history
    assert generations(pushed) == list(range(len(seen)))
    for each in receiver.requests:
        assert each.headers["content-type"] == "application/a2a+json"
        assert each.headers["authorization"] == "Bearer secret"
        assert each.headers["x-a2a-notification-token"] == "a-token"


async def test_a_later_receiver_gets_what_comes_after(stage: Stage) -> None:
    """A client that names a receiver later knows the task; each receiver gets each event once."""
    replica = await stage.replica()
    async with receiving() as one, receiving() as two, replica.starter() as starter:
        task = await sent(starter, request("a b wait:later c", at_once=True))
        async with replica.client() as client:
            watcher = watch(client, task.id)
            await watcher.until(lambda seen: text_of(seen) == "a b ")
            for each in (one, two):
                await starter.create_task_push_notification_config(each.config(task_id=task.id))
            gate("later").set()
            seen = await watcher.end()
        first, second = await one.end(), await two.end()
    assert first == second == seen[-len(first) :]
    assert text_of(first) == "c "


async def test_a_receiver_of_a_task_that_has_ended_gets_its_end(stage: Stage) -> None:
    """A client that was late hears of the end nevertheless."""
    replica = await stage.replica()
    async with receiving() as receiver, replica.starter() as client:
        task = await sent(client, request("a"))
        await client.create_task_push_notification_config(receiver.config(task_id=task.id))
        [event] = await receiver.end()
    assert event.status_update.status.state == TaskState.TASK_STATE_COMPLETED


async def test_the_delivery_ends_with_the_task(stage: Stage) -> None:
    """Nothing is left running, and one notification more costs no event of the history."""
    replica = await stage.replica()
    lengths = []
    async with receiving() as receiver, replica.starter() as client:
        for text in ("a", "a " * 100):
            wanted = request(text)
            wanted.configuration.task_push_notification_config.CopyFrom(receiver.config())
            task = await sent(client, wanted)
            handle = stage.client.get_workflow_handle(push_workflow_id(task.id))
            assert list((await handle.result()).values()) == ["everything was sent"]
            lengths.append((await handle.describe()).history_length)
    assert len(receiver.requests) > 100
    assert lengths == [11, 11]


async def test_a_question_and_the_rest_reach_the_receiver(stage: Stage) -> None:
    """A conversation goes on after a question, and its receiver with it."""
    replica = await stage.replica(workflow=Planner)
    async with receiving() as receiver, replica.starter() as client:
        wanted = request("plan")
        wanted.configuration.task_push_notification_config.CopyFrom(receiver.config())
        task = await sent(client, wanted)
        await sent(client, request("Friday", task_id=task.id))
        events = await receiver.end()
    states = [each.status_update.status.state for each in events if each.HasField("status_update")]
    assert TaskState.TASK_STATE_INPUT_REQUIRED in states
    assert text_of(events, "answer") == "Friday"


async def test_a_receiver_that_was_down_gets_everything(stage: Stage) -> None:
    """Nothing is lost while nobody listens: delivery goes on with the first that was not taken."""
    replica = await stage.replica()
    listener = listen()
    port = listener.port
    listener.socket.close()
    async with replica.starter() as client:
        wanted = request("a b c")
        wanted.configuration.task_push_notification_config.url = f"http://127.0.0.1:{port}/hook"
        task = await sent(client, wanted)
        async with receiving(port=port) as receiver:
            events = await receiver.end()
    assert text_of(events) == "a b c "
    assert generations(events) == list(range(len(events)))
    assert task.metadata["generation"] == generations(events)[-1]


async def test_a_receiver_that_fails_gets_each_event_again(stage: Stage) -> None:
    """An event that was not taken comes again, before all that follow, also after a redirect."""
    answers = {3: 500, 4: 302, 5: 404}

    def answer(receiver: Receiver, _: Got) -> Response:
        status = answers.get(len(receiver.requests), 200)
        return Response(status_code=status, headers={"Location": f"{receiver.url}/elsewhere"})

    replica = await stage.replica()
    async with receiving(answer) as receiver, replica.starter() as client:
        wanted = request("a b c")
        wanted.configuration.task_push_notification_config.CopyFrom(receiver.config())
        await sent(client, wanted)
        events = await receiver.end()
    assert text_of(events) == "a b c "
    assert generations([each.event for each in receiver.requests]) == [
        0,
        1,
        2,
        3,
        3,
        3,
        *range(3, 7),
    ]


async def test_an_event_that_is_refused_for_its_content_holds_nothing_up(stage: Stage) -> None:
    """A receiver that cannot take one event gets the others: a missing number shows the gap."""

    def answer(_: Receiver, got: Got) -> Response:
        is_refused = [part.text for part in got.event.artifact_update.artifact.parts] == ["b "]
        return Response(status_code=413 if is_refused else 200)

    replica = await stage.replica()
    async with receiving(answer) as receiver, replica.starter() as client:
        wanted = request("a b c")
        wanted.configuration.task_push_notification_config.CopyFrom(receiver.config())
        await sent(client, wanted)
        events = await receiver.end()
    assert text_of(events) == "a c "


@pytest.mark.full  # ten tries, with growing pauses
async def test_a_receiver_that_refuses_everything_loses_three_events_at_most(stage: Stage) -> None:
    """One that is set up badly answers 400 to each: then the others wait until it is mended."""

    def answer(receiver: Receiver, _: Got) -> Response:
        return Response(status_code=400 if len(receiver.requests) < 3 * 3 + 4 else 200)

    replica = await stage.replica()
    async with receiving(answer) as receiver, replica.starter() as client:
        wanted = request("a b c")
        wanted.configuration.task_push_notification_config.CopyFrom(receiver.config())
        await sent(client, wanted)
        events = await receiver.end()
    assert generations(events) == [3, 4, 5, 6]


async def test_a_receiver_that_is_gone_is_left_alone(stage: Stage) -> None:
    """With 410 a receiver says that it wants nothing more."""
    replica = await stage.replica()
    async with (
        receiving(lambda *_: Response(status_code=410)) as receiver,
        replica.starter() as client,
    ):
        wanted = request("a b c")
        wanted.configuration.task_push_notification_config.CopyFrom(receiver.config(id="mine"))
        task = await sent(client, wanted)
        outcome = await stage.client.get_workflow_handle(push_workflow_id(task.id)).result()
    assert len(receiver.requests) == 1
    assert "410" in outcome["mine"]


async def test_a_huge_answer_and_one_that_never_comes_stop_nothing(stage: Stage) -> None:
    """What a receiver answers is not kept, and one that hangs is tried again."""

    async def never() -> None:
        await gate("push-hang").wait()

    def answer(receiver: Receiver, _: Got) -> Response:
        if len(receiver.requests) == 2:

            async def silent() -> AsyncIterator[bytes]:
                await never()
                yield b""

            return StreamingResponse(silent(), status_code=500)
        return Response(b"x" * 10_000_000)

    replica = await stage.replica()
    async with receiving(answer) as receiver, replica.starter() as client:
        wanted = request("a b c")
        wanted.configuration.task_push_notification_config.CopyFrom(receiver.config())
        await sent(client, wanted)
        events = await receiver.end()
        gate("push-hang").set()
    assert text_of(events) == "a b c "


async def test_nothing_is_sent_after_a_config_is_deleted(stage: Stage) -> None:
    """When the answer to a deletion arrives, no request is on its way, and none follows."""
    replica = await stage.replica()
    async with receiving() as receiver, receiving() as other, replica.starter() as client:
        task = await sent(client, request("a wait:delete b", at_once=True))
        for name, each in (("gone", receiver), ("kept", other)):
            config = each.config(task_id=task.id, id=name)
            await client.create_task_push_notification_config(config)
        await client.delete_task_push_notification_config(
            DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="gone")
        )
        before = len(receiver.requests)
        gate("delete").set()
        events = await other.end()
    assert events
    assert len(receiver.requests) == before


async def test_a_terminated_task_ends_for_its_receiver(stage: Stage) -> None:
    """No code runs when an operator terminates a workflow; the receiver hears of it like others."""
    replica = await stage.replica()
    async with receiving() as receiver, replica.starter() as client:
        wanted = request("a wait:never", at_once=True)
        wanted.configuration.task_push_notification_config.CopyFrom(receiver.config())
        task = await sent(client, wanted)
        await receiver.until(lambda found: text_of(found.events) == "a ")
        await stage.client.get_workflow_handle(task.id).terminate()
        events = await receiver.end()
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_FAILED
    assert generations(events) == list(range(len(events)))


@pytest.mark.parametrize("settings", [push_settings(a2a_push_retry_seconds=1)], ids=["patience"])
async def test_a_receiver_that_never_takes_anything_is_given_up(stage: Stage) -> None:
    """The work of sending ends, and its operator reads at which event."""
    replica = await stage.replica()
    async with (
        receiving(lambda *_: Response(status_code=503)) as receiver,
        replica.starter() as client,
    ):
        wanted = request("a b c")
        wanted.configuration.task_push_notification_config.CopyFrom(receiver.config(id="mine"))
        task = await sent(client, wanted)
        outcome = await stage.client.get_workflow_handle(push_workflow_id(task.id)).result()
    assert outcome == {"mine": "the receiver was given up at event 0: status 503"}
    assert task.status.state == TaskState.TASK_STATE_COMPLETED


async def test_a_worker_without_the_extra_says_what_is_missing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves tasks as ever; an operator reads what to install, and delivery goes on after it."""
    replica = await stage.replica()
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "streamq.a2a.worker._push_sender", None)
        async with receiving() as receiver, replica.starter() as client:
            wanted = request("a")
            wanted.configuration.task_push_notification_config.CopyFrom(receiver.config())
            task = await sent(client, wanted)
            handle = stage.client.get_workflow_handle(push_workflow_id(task.id))
            failure = await _failure(handle)
            patched.undo()
            await receiver.end()
    assert "streamq[a2a-worker]" in failure


async def _failure(handle: WorkflowHandle[Any, Any]) -> str:
    """Return the last failure of a delivery, as an operator reads it."""
    async with asyncio.timeout(20):
        while True:
            found = (await handle.describe()).raw_description.pending_activities
            if found and found[0].HasField("last_failure"):
                return found[0].last_failure.message
            await asyncio.sleep(0.05)
