"""Workers that die while they send push notifications: receivers miss nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from a2a.types.a2a_pb2 import TaskState
from temporalio.client import Client
from tests.temporal.a2a.processes import running_worker
from tests.temporal.a2a.receivers import push_settings, receiving
from tests.temporal.a2a.replicas import Stage, generations, request, sent, text_of
from tests.temporal.support.processes import Shared

_PERMITTED = {"STREAMQ_A2A_PUSH_NETWORKS": "127.0.0.1", "STREAMQ_A2A_PUSH_HTTP": "true"}


@pytest.mark.full  # a worker that died is noticed after two seconds, three times
@pytest.mark.parametrize("shared", ["redis"], indirect=True)
async def test_a_killed_worker_goes_on_where_it_stopped(
    client: Client, shared: Shared, temporal_address: str, tmp_path: Path
) -> None:
    """The next worker repeats at most what came after the last heartbeat; nothing is left out."""
    gate_file = tmp_path / "go"
    environment = shared.environment | _PERMITTED
    stage = Stage(client, shared.queue, push_settings(backend=shared.settings.backend))
    try:
        replica = await stage.replica(activity="write")
        async with receiving() as receiver, replica.starter() as starter:
            with running_worker(environment, temporal_address, stage.task_queue) as first:
                wanted = request(str(gate_file), at_once=True)
                wanted.configuration.task_push_notification_config.CopyFrom(receiver.config())
                task = await sent(starter, wanted)
                await receiver.until(lambda found: text_of(found.events).endswith("1.9 "))
                first.kill()
            with running_worker(environment, temporal_address, stage.task_queue):
                await receiver.until(lambda found: text_of(found.events).endswith("2.19 "))
                gate_file.touch()
                events = await receiver.end()
    finally:
        await stage.aclose()
    assert text_of(events) == "".join(f"2.{i} " for i in range(20)) + "end"
    assert generations(events) == list(range(len(events)))
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
    assert events[-1].status_update.task_id == task.id
