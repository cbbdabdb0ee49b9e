"""Records activities that use more of Temporal than their writer: clients, interceptors, info."""

from __future__ import annotations

from typing import Any

import pytest
from temporalio import activity
from temporalio.common import RetryPolicy
from temporalio.service import RPCError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor
from tests.applications.activities import write

from streamq import ConfigurationError, StreamWriter
from streamq.temporal import streaming_activity
from streamq.testing import record
from streamq.testing.applications import _activity_run


@streaming_activity
async def ask(stream: StreamWriter[str]) -> str:
    await stream.send_chunk("asks")
    await activity.client().get_workflow_handle("other").query("state")
    return "unreachable"


@streaming_activity
async def inform(stream: StreamWriter[dict[str, Any]]) -> None:
    info = activity.info()
    assert info.retry_policy is not None
    await stream.send_chunk(
        {
            "type": info.activity_type,
            "attempt": info.attempt,
            "workflow": info.workflow_id,
            "attempts": info.retry_policy.maximum_attempts,
            "details": list(info.heartbeat_details),
        }
    )


class Shouting(Interceptor):
    """Changes the arguments, as an application's interceptor may."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        class Inbound(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                input.args = [str(each).upper() for each in input.args]
                return await super().execute_activity(input)

        return Inbound(next)


async def test_call_to_temporal_fails_with_the_remedy() -> None:
    """A unit test has no server; the message says how to give it one."""
    recorded = await record(ask)
    assert isinstance(recorded.error, RPCError)
    assert "without a Temporal server" in str(recorded.error)
    assert "pass client=" in str(recorded.error)
    assert recorded.is_retried


async def test_interceptors_of_the_worker_run() -> None:
    """What they add to each activity is a part of what is tested."""
    recorded = await record(write, "Oslo", interceptors=[Shouting()])
    assert recorded.chunks[0] == "OSLO the"


async def test_info_is_what_the_options_say() -> None:
    """Code that decides by it is tested with known values."""
    recorded = await record(
        inform,
        attempt=2,
        workflow_id="order-7",
        retry_policy=RetryPolicy(maximum_attempts=3),
        heartbeat_details=["half"],
    )
    assert recorded.chunks == [
        {
            "type": "inform",
            "attempt": 2,
            "workflow": "order-7",
            "attempts": 3,
            "details": ["half"],
        }
    ]


async def test_sdk_that_runs_activities_otherwise_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade of the SDK must not end in an error that nobody understands."""

    class LaterWorker:
        def __init__(self, *, bridge_worker: object, another_part: object) -> None: ...

    monkeypatch.setattr(_activity_run, "_ActivityWorker", LaterWorker)
    with pytest.raises(ConfigurationError, match=r"temporalio \d.*take a newer streamq"):
        await record(write, "Oslo")
