"""Tests that programs written for Workflow Streams run over a queue with another import line."""

from __future__ import annotations

import asyncio
import importlib
import uuid
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import PayloadCodec
from temporalio.worker import Worker

from streamq import open_queue
from streamq.driver import START, StreamId
from streamq.temporal import StreamqPlugin, stream_name
from streamq.temporal.workflow_streams import WorkflowStreamClient
from streamq.temporal.workflow_streams._items import TOPIC

PROGRAM = Path(__file__).with_name("streams_program.py")
_RUNS = 10
_RUN_SECONDS = 250
"""A busy server may lose the end of an activity; it repeats it after its time-out, each time."""
ORIGINAL, OURS = "temporalio.contrib.workflow_streams", "streamq.temporal.workflow_streams"


@pytest.fixture(autouse=True)
def _configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STREAMQ_BACKEND", "sqlite")
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    monkeypatch.syspath_prepend(str(tmp_path))


def load(tmp_path: Path, package: str) -> Any:
    """Return the program with its import line changed."""
    source = PROGRAM.read_text()
    assert source.count(ORIGINAL) == 1
    name = f"program_{package.partition('.')[0]}_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(source.replace(ORIGINAL, package))
    importlib.invalidate_caches()
    return importlib.import_module(name)


async def run(program: Any, client: Client, plugins: list[StreamqPlugin]) -> dict[str, Any]:
    """Run the program once; return what its subscribers got."""
    task_queue = workflow_id = f"streams-{uuid.uuid4().hex}"
    worker = Worker(
        client,
        task_queue=task_queue,
        workflows=[program.Job],
        activities=[program.produce],
        plugins=plugins,
    )
    expected = program.RUNS * (program.STEPS + 5 + 2) + program.OUTSIDE
    async with asyncio.timeout(_RUN_SECONDS), worker:
        handle = await client.start_workflow(
            program.Job.run, program.Input(), id=workflow_id, task_queue=task_queue
        )
        outside = asyncio.create_task(program.announce(client, workflow_id))
        progress = asyncio.create_task(program.follow_progress(client, workflow_id))
        live, missing = [], {f"run {program.RUNS} is done", *range(program.OUTSIDE)}
        async for item in program.follow(client, workflow_id):
            live.append(item)
            if item[1] not in ("status", "outside") or item[2] not in missing:
                continue
            missing.remove(item[2])
            if not missing:  # not by their number: a run before the last would lose the signal
                assert await program.count(client, workflow_id) >= expected
                await handle.signal("seen")
        await outside
        assert await handle.result() == "over"
        late = [item async for item in program.follow(client, workflow_id)]
        middle = live[expected // 2][0]
        rest = [item async for item in program.follow(client, workflow_id, None, middle)]
        some = [item async for item in program.follow(client, workflow_id, ["log", "status"])]
        assert late == live
        assert rest == live[expected // 2 :]
        assert some == [item for item in live if item[1] in ("log", "status")]
        offsets = [offset for offset, _, _ in live]
        assert offsets == sorted(set(offsets))
        published: dict[str, list[Any]] = {}
        for _, topic, data in live:
            published.setdefault(topic, []).append(data)
        return {
            **published,
            "typed": [(each.step, each.text) for each in await progress],
        }


async def run_undisturbed(
    tmp_path: Path, package: str, client: Client, plugins: list[StreamqPlugin]
) -> dict[str, Any]:
    """Run the program, again if an activity was executed twice, as a busy server may do."""
    for _ in range(_RUNS):
        program = load(tmp_path, package)
        published = await run(program, client, plugins)
        if len(program.EXECUTIONS) == program.RUNS:
            return published
    pytest.fail(f"{package}: in each of {_RUNS} runs an activity was executed more than once")


@pytest.mark.timeout(6 * _RUN_SECONDS)
async def test_program_with_another_import_line_delivers_the_same(
    client: Client, tmp_path: Path
) -> None:
    """Users try another backend only if returning is as easy: one line."""
    original = await run_undisturbed(tmp_path, ORIGINAL, client, [])
    ours = await run_undisturbed(tmp_path, OURS, client, [StreamqPlugin()])
    assert ours == original
    assert ours["status"] == [
        *("run 1 begins", "run 1 is done", "run 2 begins", "run 2 is done"),
        "seen",
    ]
    assert ours["outside"] == [*range(10)]


class _Flipping(PayloadCodec):
    async def encode(self, payloads: Any) -> list[Payload]:
        return [
            Payload(
                metadata={"encoding": b"flipped"},
                data=bytes(byte ^ 255 for byte in payload.SerializeToString()),
            )
            for payload in payloads
        ]

    async def decode(self, payloads: Any) -> list[Payload]:
        return [
            Payload.FromString(bytes(byte ^ 255 for byte in payload.data)) for payload in payloads
        ]


@pytest.mark.timeout(2 * _RUN_SECONDS)
async def test_payload_codec_leaves_nothing_readable_in_the_queue(
    temporal_address: str, tmp_path: Path
) -> None:
    """Data that is encrypted for Temporal must not be stored in clear text in the queue."""
    converter = pydantic_data_converter.__class__(
        payload_converter_class=pydantic_data_converter.payload_converter_class,
        payload_codec=_Flipping(),
    )
    client = await Client.connect(temporal_address, data_converter=converter)
    program = load(tmp_path, OURS)
    ours = await run(program, client, [StreamqPlugin()])
    assert ours["status"][-1] == "seen"
    stored = (tmp_path / "streams.db").read_bytes()
    wal = tmp_path / "streams.db-wal"
    stored += wal.read_bytes() if wal.exists() else b""
    assert b"run 1" not in stored
    assert b"progress" not in stored


async def test_publishers_that_flush_at_once_lose_and_repeat_nothing(
    client: Client, tmp_path: Path
) -> None:
    """Several activities of one workflow report at the same time: topics exist for that."""
    program = load(tmp_path, OURS)
    task_queue = workflow_id = f"streams-{uuid.uuid4().hex}"
    handle = await client.start_workflow("Job", id=workflow_id, task_queue=task_queue)
    async with asyncio.timeout(90), open_queue() as queue:

        async def publish(name: str) -> None:
            async with WorkflowStreamClient.create(client, workflow_id, queue=queue) as publisher:
                for number in range(30):
                    publisher.topic(name).publish(number)
                    await publisher.flush()

        names = [f"topic {i}" for i in range(4)]
        await asyncio.gather(*map(publish, names))
        await handle.terminate()
        published: dict[str, list[int]] = {name: [] for name in names}
        async for _, topic, data in program.follow(client, workflow_id):
            published[topic].append(data)
        assert published == {name: [*range(30)] for name in names}
        stream = StreamId("default", stream_name(workflow_id, str(handle.result_run_id), TOPIC))
        assert await queue.read(stream, START, max_records=1, max_bytes=1, max_wait=0)
