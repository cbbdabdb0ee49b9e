"""Tests mistakes in the input of the generic workflow: it must fail, and state the mistake."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from tests.temporal.support.fixture_types import Run, Start

from streamq import StreamWriter
from streamq.temporal import streaming_activity


@streaming_activity
async def poem(stream: StreamWriter) -> str:
    await stream.send_chunk("line")
    return "end"


def raw(text: str) -> RawValue:
    return RawValue(Payload(metadata={"encoding": b"json/plain"}, data=text.encode()))


def field(name: str, value: Any, **others: Any) -> str:
    return json.dumps({"activity": "poem", **others, name: value})


LONG = "x" * 1_001
MISTAKES = {
    "nothing": ([], "JSON object"),
    "null": (["null"], "JSON object"),
    "a list": (['[{"activity": "poem"}]'], "JSON object"),
    "a number": (["7"], "JSON object"),
    "a second input": ([field("summary", False), '"poem"'], "one input"),
    "no name": ([field("activity", "")], "activity"),
    "a name that is too long": ([field("activity", LONG)], "activity"),
    "a name that is no text": ([field("activity", "\ud800")], "activity"),
    "a long task queue": ([field("task_queue", LONG)], "task_queue"),
    "a reserved task queue": ([field("task_queue", "/_sys/poems")], "task_queue"),
    "nobody to tell": ([field("progress_workflow_id", "")], "progress_workflow_id"),
    "a long id": ([field("progress_workflow_id", LONG)], "progress_workflow_id"),
    "a long topic": ([field("topic", "t" * 1_600, delivery="poll")], "1536; use a shorter topic"),
    "a huge time": ([field("start_to_close_seconds", 1e300)], "start_to_close_seconds"),
    "no time": ([field("start_to_close_seconds", 1e-9)], "start_to_close_seconds"),
    "not a number": ([field("heartbeat_seconds", float("nan"))], "heartbeat_seconds"),
    "a number without end": ([field("progress_seconds", 10**400)], "progress_seconds"),
    "many attempts": ([field("max_attempts", 2**40)], "max_attempts"),
    "half an attempt": ([field("max_attempts", 1.5)], "max_attempts"),
    "a truth for a number": ([field("max_attempts", True)], "max_attempts"),
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_mistake_fails_the_workflow(
    run_worker: Run, client: Client, task_queue: str, name: str
) -> None:
    """A failing workflow task is retried for ever, without a visible reason."""
    inputs, about = MISTAKES[name]
    async with run_worker(poem):
        handle = await client.start_workflow(
            "streamq.Stream",
            args=[raw(each) for each in inputs],
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await asyncio.wait_for(handle.result(), 10)
    failure = caught.value.cause
    assert isinstance(failure, ApplicationError)
    assert (failure.type, failure.non_retryable) == ("ConfigurationError", True)
    assert about in failure.message


async def test_invalid_target_is_not_retried_for_ever(run_worker: Run, start: Start) -> None:
    """An invalid argument stays invalid; the work itself must not fail for it."""
    async with run_worker(poem):
        handle = await start(
            "poem", delivery="signal", target_workflow_id="gateway", target_run_id="no run id"
        )
        result = await asyncio.wait_for(handle.result(), 20)
    assert result["result"] == "end"
    assert "target_run_id" in result["error"]
