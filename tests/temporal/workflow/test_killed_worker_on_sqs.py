"""Tests that a worker that reads from SQS for a workflow may be killed with messages in flight."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.worker import Worker
from tests.temporal.support.following_workflows import Follows, Options

from streamq import StreamWriter, load_settings, open_queue
from streamq.temporal import StreamqPlugin, streaming_activity

_ROOT = Path(__file__).parents[3]
_VISIBILITY_SECONDS = 15


@streaming_activity
async def count_mail(chunks: int, stream: StreamWriter) -> str:
    for i in range(chunks):
        await stream.send_chunk(i)
        await stream.flush()
    return "done"


@pytest.fixture(
    params=["true", pytest.param("false", marks=pytest.mark.full)], ids=["fifo", "standard"]
)
def environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run an emulator, and set the variables for it in this process and those that it starts."""
    embedded = pytest.importorskip("streamq_aws.embedded")
    pytest.importorskip("streamq_sqs")
    with embedded.Ministack() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("STREAMQ_BACKEND", "sqs")
        monkeypatch.setenv("STREAMQ_SQS_FIFO", request.param)
        monkeypatch.setenv("STREAMQ_SQS_MAX_MESSAGE_BYTES", "262144")
        monkeypatch.setenv("STREAMQ_SQS_VISIBILITY_SECONDS", str(_VISIBILITY_SECONDS))
        yield


@contextmanager
def polling(address: str, task_queue: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [
        sys.executable,
        "-m",
        "tests.temporal.support.poll_process",
        address,
        task_queue,
        *options,
    ]
    with subprocess.Popen(command, cwd=_ROOT, env=os.environ, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_killed_poll_loses_and_repeats_nothing(
    environment: None,
    client: Client,
    temporal_address: str,
    task_queue: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """kill -9 between receive and acknowledge: the messages come again, after a while."""
    producing = f"{task_queue}-producing"
    settings = load_settings()
    async with (
        await open_queue(settings) as queue,
        Worker(
            client,
            task_queue=producing,
            activities=[count_mail],
            plugins=[StreamqPlugin(queue, settings)],
        ),
    ):
        handle = await client.start_workflow(
            Follows.run,
            args=["count_mail", [60], Options(task_queue=producing)],
            id=f"wf-{uuid.uuid4().hex}",
            task_queue=task_queue,
        )
        with polling(temporal_address, task_queue, "dies") as first:
            out, _ = await asyncio.wait_for(asyncio.to_thread(first.communicate), 60)
        assert first.returncode == -9
        assert int(out) > 0, "it died with nothing in its hands"
        died = time.monotonic()
        with polling(temporal_address, task_queue):
            seen = await asyncio.wait_for(handle.result(), 60)
    delay = time.monotonic() - died
    assert seen == [*range(60), "END", ["result", "done"]]
    with capsys.disabled():
        print(f"\nkilled with {int(out)} events received; all delivered {delay:.1f} s later")  # noqa: T201
