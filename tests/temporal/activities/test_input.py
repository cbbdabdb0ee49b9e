"""Mistakes in the input of activities that any SDK may call: they must fail for good, in words."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker
from tests.temporal.support.workflows import Calls

from streamq import ConfigurationError, Settings
from streamq.driver import ChunkQueue
from streamq.temporal import ForwardRequest, PollRequest, SealRequest, StreamqPlugin, StreamRequest
from streamq.temporal._input import from_json

MISTAKES: dict[str, tuple[str, list[Any], str]] = {
    "poll: no object": ("streamq.poll", ["wf/run/default"], "must be a JSON object"),
    "poll: nothing": ("streamq.poll", [], "one input"),
    "poll: unknown": ("streamq.poll", [{"stream": "a", "curser": "b"}], "did you mean 'cursor'?"),
    "poll: type": ("streamq.poll", [{"stream": "a", "max_wait_seconds": "1"}], "max_wait_seconds"),
    "seal: missing": ("streamq.seal", [{"state": "ERROR"}], "'stream' of SealRequest is missing"),
    "seal: state": ("streamq.seal", [{"stream": "a", "state": "EROR"}], "did you mean 'ERROR'?"),
    "forward: type": (
        "streamq.forward",
        [{"stream": "a", "target_workflow_id": 7}],
        "target_workflow_id",
    ),
    "summary: unknown": ("streamq.summary", [{"stream": "a", "name": "b"}], "'name'"),
}


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake_fails_the_activity_for_good(
    client: Client, queue: ChunkQueue, settings: Settings, task_queue: str, name: str
) -> None:
    """Tried again for ever, or ignored, it would be looked for anywhere but in the input."""
    activity, args, about = MISTAKES[name]
    plugin = StreamqPlugin(queue, settings)
    async with Worker(client, task_queue=task_queue, workflows=[Calls], plugins=[plugin]):
        handle = await client.start_workflow(
            Calls.run, args=[activity, args], id=f"wf-{uuid.uuid4().hex}", task_queue=task_queue
        )
        with pytest.raises(WorkflowFailureError) as caught:
            await asyncio.wait_for(handle.result(), 10)
    assert isinstance(caught.value.cause, ActivityError)
    failure = caught.value.cause.cause
    assert isinstance(failure, ApplicationError)
    assert (failure.type, failure.non_retryable) == ("ConfigurationError", True)
    assert about in failure.message


def test_a_value_that_is_none_of_a_few_is_told_the_few() -> None:
    """Whoever mistypes needs what may be written there, not the name of a class of ours."""
    with pytest.raises(ConfigurationError) as caught:
        from_json(StreamRequest, {"activity": "poem", "delivery": "polls"})
    assert str(caught.value) == (
        "delivery must be one of 'none', 'poll', 'signal', not 'polls'; did you mean 'poll'?"
    )


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (PollRequest, {"stream": "a", "max_wait_seconds": 1, "values": False, "cursor": None}),
        (SealRequest, {"stream": "a", "state": "CANCELLED"}),
        (ForwardRequest, {"stream": "a", "target_workflow_id": "b", "window_seconds": 0}),
    ],
)
def test_what_other_languages_write_is_read(kind: type[Any], data: dict[str, Any]) -> None:
    """They write whole numbers for seconds, and null for what they leave out."""
    read = from_json(kind, data)
    assert {name: getattr(read, name) for name in data} == data
