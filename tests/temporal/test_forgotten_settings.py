"""What is easily forgotten: the decorator, the heartbeat timeout. It must be told at once."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker
from tests.temporal.support.workflows import Twice

from streamq import BlockingStreamWriter, ConfigurationError, Settings, StreamWriter
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, streaming_activity, subscribe


@activity.defn
async def undecorated(prompt: str, stream: StreamWriter[str]) -> str:
    return prompt


@activity.defn
def undecorated_in_a_thread(stream: BlockingStreamWriter, prompt: str) -> str:
    return prompt


@streaming_activity
async def decorated(stream: StreamWriter[str]) -> None:
    await stream.send_chunk("line")


def speaker(topic: str) -> Any:
    @streaming_activity(name=f"speak_{topic}", topic=topic)
    async def speak(stream: StreamWriter[str]) -> None:
        await stream.send_chunk(topic)

    return speak


@pytest.mark.parametrize("function", [undecorated, undecorated_in_a_thread])
def test_a_worker_refuses_an_activity_whose_writer_nobody_passes(
    client: Client, queue: ChunkQueue, settings: Settings, function: Any
) -> None:
    """It would fail at each call, for the want of an argument that no workflow can pass."""
    plugin = StreamqPlugin(queue, settings)
    with pytest.raises(ConfigurationError, match="@streaming_activity") as caught:
        Worker(client, task_queue="q", activities=[decorated, function], plugins=[plugin])
    assert function.__name__ in str(caught.value)


@pytest.mark.parametrize("beats", [False, True])
async def test_a_call_without_heartbeat_timeout_is_told_once(
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    task_queue: str,
    caplog: pytest.LogCaptureFixture,
    beats: bool,
) -> None:
    """Without it nobody notices a dead worker, for as long as an attempt may take."""
    caplog.set_level(logging.WARNING, "streamq.temporal")
    async with Worker(
        client,
        task_queue=task_queue,
        workflows=[Twice],
        activities=[speaker("a"), speaker("b")],
        plugins=[StreamqPlugin(queue, settings)],
    ):
        for _ in range(2):
            running = client.execute_workflow(
                Twice.run, beats, id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
            )
            await asyncio.wait_for(running, 20)
    told = [each.getMessage() for each in caplog.records if "heartbeat_timeout" in each.msg]
    assert [each.split()[1] for each in told] == ([] if beats else ["speak_a", "speak_b"])


@pytest.mark.parametrize("name", ["idle_seconds", "start_seconds"])
@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_time_that_cannot_be_is_refused(client: Client, name: str, seconds: float) -> None:
    """A deadline that has passed before anything began would look like a dead producer."""
    times: dict[str, Any] = {name: seconds}
    with pytest.raises(ConfigurationError, match=name):
        subscribe("wf", client=client, **times)
