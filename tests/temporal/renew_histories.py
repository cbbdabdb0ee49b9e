"""Write the histories that tests/temporal/test_histories.py replays: run it as a module.

``python -m tests.temporal.renew_histories [NAME ...]``: only after a change that old histories are
meant not to survive, or for a new scenario. Everything else must replay those that are there.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from streamq import StreamWriter, load_settings
from streamq.devserver import FAST, TemporalDevServer
from streamq.driver import QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.temporal import (
    StreamqPlugin,
    StreamRequest,
    SweepRequest,
    stream_name,
    streaming_activity,
)

from .followers import Continues, Follows, Options, State
from .receivers import Gateway

DIRECTORY = Path(__file__).parent / "histories"
TASK_QUEUE = "histories"

Handle = WorkflowHandle[Any, Any]


@streaming_activity
async def count(chunks: int, stream: StreamWriter) -> str:
    for i in range(chunks):
        await stream.send_chunk(i)
        await asyncio.sleep(0.01)
    return "counted"


@streaming_activity
async def twice(stream: StreamWriter) -> str:
    await stream.send_chunk(b"\xff\x00")
    await stream.send_chunk({"attempt": activity.info().attempt})
    if activity.info().attempt == 1:
        raise ApplicationError("again", next_retry_delay=timedelta(milliseconds=50))
    return "at last"


@streaming_activity
async def fail(stream: StreamWriter) -> None:
    await stream.send_chunk("half")
    raise ApplicationError("broken", type="ModelError", non_retryable=True)


@streaming_activity
async def wait_for_ever(stream: StreamWriter) -> None:
    await stream.send_chunk("working")
    await asyncio.Event().wait()


async def _start(client: Client, workflow: Any, *args: Any) -> Handle:
    return await client.start_workflow(
        workflow, args=args, id=f"wf-{uuid.uuid4().hex[:8]}", task_queue=TASK_QUEUE
    )


def _follows(name: str, *args: Any, **options: Any) -> Callable[[Client], Awaitable[Handle]]:
    return lambda client: _start(client, "Follows", name, list(args), Options(**options))


def _continues(name: str, *args: Any, **options: Any) -> Callable[[Client], Awaitable[Handle]]:
    state = State(name, list(args), Options(detached=True, **options))
    return lambda client: _start(client, "Continues", state)


def _stream(name: str, *args: Any, **options: Any) -> Callable[[Client], Awaitable[Handle]]:
    async def start(client: Client) -> Handle:
        if options.get("delivery") == "signal":
            gateway = await _start(client, "Gateway")
            options["target_workflow_id"] = gateway.id
        return await _start(client, "streamq.Stream", StreamRequest(name, list(args), **options))

    return start


async def _sweep(client: Client) -> Handle:
    return await _start(client, "streamq.Sweep", SweepRequest(grace_seconds=0))


SCENARIOS: dict[str, Callable[[Client], Awaitable[Handle]]] = {
    "follow-activity": _follows("count", 40),
    "follow-local": _follows("count", 80, polling="local", window_ms=20),
    "follow-detached": _follows("count", 40, detached=True),
    "follow-retry": _follows("twice"),
    "follow-failure": _follows("fail"),
    "follow-break": _follows("wait_for_ever", stop_after=1),
    "follow-cancel": _follows("wait_for_ever"),
    "follow-timeout": _follows("wait_for_ever", start_to_close_seconds=0.3, max_attempts=1),
    "continue-activity": _continues("count", 40, continue_every=15),
    "continue-local": _continues("count", 80, continue_every=30, polling="local", window_ms=20),
    "continue-failure": _continues("fail", continue_every=1),
    "stream-none": _stream("count", 10),
    "stream-poll": _stream("count", 40, delivery="poll"),
    "stream-poll-attached": _stream("count", 40, delivery="poll", detached=False),
    "stream-signal": _stream("count", 40, delivery="signal"),
    "stream-cancel": _stream("wait_for_ever", delivery="poll"),
    "sweep": _sweep,
}


async def _write(client: Client, name: str, handle: Handle) -> None:
    run_id: str | None = handle.first_execution_run_id
    number = 0
    while run_id:
        number += 1
        history = await client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
        _save(f"{name}-{number}", history.to_json())
        last = history.events[-1].workflow_execution_continued_as_new_event_attributes
        run_id = last.new_execution_run_id
    child = client.get_workflow_handle(stream_name(handle.id, str(handle.first_execution_run_id)))
    try:
        _save(f"{name}-produce", (await child.fetch_history()).to_json())
    except Exception:  # noqa: BLE001 - most scenarios have none
        return


def _save(name: str, text: str) -> None:
    data = _without_traces(json.loads(text))
    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / f"{name}.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")


def _without_traces(data: Any) -> Any:
    """Leave out where the sources are on the machine that wrote them."""
    if isinstance(data, dict):
        return {key: _without_traces(value) for key, value in data.items() if key != "stackTrace"}
    return [_without_traces(each) for each in data] if isinstance(data, list) else data


async def renew(names: list[str]) -> None:
    """Run the scenarios on a server of their own and write their histories."""
    options = QueueOptions(ttl=timedelta(minutes=5))
    settings = load_settings(backend="memory", cancel_seconds=0.2)
    with TemporalDevServer(dynamic_config=FAST) as server:
        client = await Client.connect(server.address, identity="histories")
        async with (
            await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex)) as queue,
            Worker(
                client,
                task_queue=TASK_QUEUE,
                workflows=[Follows, Continues, Gateway],
                activities=[count, twice, fail, wait_for_ever],
                plugins=[StreamqPlugin(queue, settings)],
            ),
        ):
            for name in names or SCENARIOS:
                handle = await SCENARIOS[name](client)
                if name.endswith("cancel"):
                    await asyncio.sleep(1.0)  # for the first chunk to be there
                    await handle.cancel()
                try:
                    await handle.result()
                except WorkflowFailureError as exc:
                    if not name.endswith(("cancel", "failure")):
                        raise SystemExit(f"{name}: {exc.cause}") from exc
                await _write(client, name, handle)


if __name__ == "__main__":
    asyncio.run(renew(sys.argv[1:]))
