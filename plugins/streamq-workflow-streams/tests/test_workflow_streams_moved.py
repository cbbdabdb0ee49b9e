"""Tests of a healthy connection to the wrong server: moved names, rotated keys and certificates."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
import trustme
from temporalio.api.errordetails.v1 import NamespaceNotActiveFailure, NamespaceNotFoundFailure
from tests.temporal.support.secure_frontend import (
    Refusal,
    SecureFrontend,
    secure_frontend,
    write_files,
)

from streamq import (
    AccessDeniedError,
    BackendUnavailableError,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.devserver import TemporalDevServer
from streamq.driver import ChunkQueue, Entry, QueueOptions, StreamId
from streamq.testing import FaultProxy
from streamq_workflow_streams import WorkflowStreamsDriver, WorkflowStreamsSettings
from streamq_workflow_streams.requests import _connection

OLD, NEW = "old-key-that-nobody-may-see", "new-key-that-nobody-may-see"
OPTIONS = QueueOptions(ttl=timedelta(minutes=5))
CHOSEN = load_settings(backend="workflow_streams", retry_seconds=30, idle_seconds=60)

REFUSALS = {
    "not active": Refusal(
        grpc.StatusCode.FAILED_PRECONDITION,
        "Namespace default is active in another cluster",
        NamespaceNotActiveFailure(namespace="default", active_cluster="b", current_cluster="a"),
    ),
    "not found": Refusal(
        grpc.StatusCode.NOT_FOUND,
        "Namespace default is not found.",
        NamespaceNotFoundFailure(namespace="default"),
    ),
    "no server": Refusal(grpc.StatusCode.UNAVAILABLE, "no healthy upstream"),
    "another server": Refusal(grpc.StatusCode.UNIMPLEMENTED, "unknown service"),
    "refused": Refusal(grpc.StatusCode.PERMISSION_DENIED, "Request unauthorized."),
}


@dataclass
class Cloud:
    """Two frontends of one Temporal server, and the name that leads to the first of them."""

    first: SecureFrontend
    second: SecureFrontend
    name: FaultProxy
    key_file: Path
    settings: WorkflowStreamsSettings
    move: Callable[[], None]


@pytest.fixture
async def cloud(server: TemporalDevServer, tmp_path: Path) -> AsyncIterator[Cloud]:
    """Return frontends that demand certificates of different authorities, and different keys."""
    authority, clients, later = trustme.CA(), trustme.CA(), trustme.CA()
    files = write_files(tmp_path, authority, clients.issue_cert("me@example.org"))
    key_file = tmp_path / "key"
    key_file.write_text(f"{OLD}\n")
    async with AsyncExitStack() as stack:
        first, second = (
            stack.enter_context(
                secure_frontend(
                    server.address,
                    authority.issue_cert("localhost"),
                    client_ca=client_ca,
                    api_key=key,
                )
            )
            for client_ca, key in ((clients, OLD), (later, NEW))
        )
        name = await stack.enter_async_context(
            FaultProxy("127.0.0.1", int(first.address.rpartition(":")[2]))
        )

        def move() -> None:
            write_files(tmp_path, authority, later.issue_cert("me@example.org"))
            key_file.write_text(f"{NEW}\n")
            name.redirect("127.0.0.1", int(second.address.rpartition(":")[2]))

        port = name.address.rpartition(":")[2]
        settings = WorkflowStreamsSettings(
            address=f"localhost:{port}",
            api_key_file=key_file,
            tls_server_ca=files.ca,
            tls_client_cert=files.cert,
            tls_client_key=files.key,
            absent_poll_seconds=0.1,
            listing_delay_seconds=0,
        )
        yield Cloud(first, second, name, key_file, settings, move)


async def open_at(cloud: Cloud) -> ChunkQueue:
    return await WorkflowStreamsDriver.open(OPTIONS, cloud.settings)


async def follow(queue: ChunkQueue, stream: StreamId) -> list[object]:
    async with open_reader(stream, queue=queue, settings=CHOSEN) as reader:
        return await reader.collect()


@pytest.mark.parametrize("refusal", [*REFUSALS.values()], ids=[*REFUSALS])
async def test_queue_follows_a_name_that_has_moved(cloud: Cloud, refusal: Refusal) -> None:
    """The old server stays up and keeps its connections: every kind of call has to leave it."""
    stream, absent = (StreamId("default", uuid.uuid4().hex) for _ in range(2))
    async with (
        await open_at(cloud) as queue,
        await open_at(cloud) as other,
        open_writer(stream, queue=queue, settings=CHOSEN) as writer,
    ):
        await writer.send_chunk("before ")
        await writer.flush()
        readers = [asyncio.create_task(follow(each, stream)) for each in (queue, other)]
        waiting = asyncio.create_task(follow(other, absent))
        while cloud.first.calls.count("UpdateWorkflowExecution") < 2:  # noqa: ASYNC110 - long polls
            await asyncio.sleep(0.02)
        cloud.move()
        cloud.first.refusal = refusal
        await writer.send_chunk("after")
        await writer.flush()
        async with open_writer(absent, queue=queue, settings=CHOSEN) as another:
            await another.send_chunk("there")
        assert [info.stream async for info in queue.streams("default", stream.name)] == [stream]
        await writer.finish()
        async with asyncio.timeout(60):
            assert [await each for each in readers] == [["before ", "after"]] * 2
            assert await waiting == ["there"]


async def test_rotated_key_is_read_again(cloud: Cloud) -> None:
    """A key expires every few weeks, and nobody restarts a process for that."""
    stream = StreamId("default", uuid.uuid4().hex)
    async with (
        await open_at(cloud) as queue,
        open_writer(stream, queue=queue, settings=CHOSEN) as writer,
    ):
        await writer.send_chunk("before ")
        await writer.flush()
        reading = asyncio.create_task(follow(queue, stream))
        cloud.first.api_key = NEW
        sending = asyncio.create_task(writer.send_chunk("after"))
        await asyncio.sleep(1.2)  # the new key is distributed a little later
        cloud.key_file.write_text(NEW)
        await sending
        await writer.flush()
        await writer.finish()
        async with asyncio.timeout(60):
            assert await reading == ["before ", "after"]


async def test_refusal_that_lasts_is_one_clear_error(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that was revoked is reported, with what to check and without the key."""
    monkeypatch.setattr(_connection, "_REFUSED_SECONDS", 1.0)
    stream = StreamId("default", uuid.uuid4().hex)
    async with await open_at(cloud) as queue:
        writer = await open_writer(stream, queue=queue, settings=CHOSEN)
        await writer.send_chunk("kept")
        await writer.flush()
        cloud.first.api_key = NEW
        await writer.send_chunk("lost")
        with pytest.raises(AccessDeniedError, match="STREAMQ_WORKFLOW_STREAMS_API_KEY") as caught:
            await writer.flush()
        assert OLD not in str(caught.value)
        await writer.aclose()


async def test_append_to_a_namespace_that_is_gone_ends(cloud: Cloud) -> None:
    """The host is not started again and again where there is no namespace for it."""
    stream = StreamId("default", uuid.uuid4().hex)
    async with await open_at(cloud) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
        cloud.first.refusal = REFUSALS["not found"]
        with pytest.raises(BackendUnavailableError, match="namespace"):
            async with asyncio.timeout(30):
                await queue.append(stream, [Entry(1, 1, b"b")])


async def test_doctor_finds_what_is_missing(cloud: Cloud) -> None:
    """Without a worker for hosts every call fails, and the server looks healthy."""
    driver, settings = WorkflowStreamsDriver, cloud.settings
    found = await driver.examine(OPTIONS, settings)
    assert [each.subject for each in found if not each.ok or each.is_warning] == []
    nobody = settings.model_copy(update={"task_queue": uuid.uuid4().hex})
    (missing,) = [each for each in await driver.examine(OPTIONS, nobody) if not each.ok]
    assert missing.subject == "worker for hosts"
    assert "python -m streamq_workflow_streams" in missing.remedy
    cloud.first.refused_calls = {"ListWorkflowExecutions"}
    (refused,) = [each for each in await driver.examine(OPTIONS, settings) if not each.ok]
    assert refused.subject == "permissions"
    assert "no such permission" in refused.detail


async def test_worker_for_hosts_follows_name_key_and_certificates(
    cloud: Cloud, server: TemporalDevServer
) -> None:
    """Without it no stream is kept, and it runs for months."""
    task_queue = f"hosts-{uuid.uuid4().hex}"
    chosen = cloud.settings
    variables = {
        "ADDRESS": chosen.address,
        "TASK_QUEUE": task_queue,
        "API_KEY_FILE": str(chosen.api_key_file),
        "TLS_SERVER_CA": str(chosen.tls_server_ca),
        "TLS_CLIENT_CERT": str(chosen.tls_client_cert),
        "TLS_CLIENT_KEY": str(chosen.tls_client_key),
    }
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "streamq_workflow_streams"),
        env={**os.environ, **{f"STREAMQ_WORKFLOW_STREAMS_{k}": v for k, v in variables.items()}},
    )
    direct = WorkflowStreamsSettings(address=server.address, task_queue=task_queue)
    patient = load_settings(backend="workflow_streams", retry_seconds=90)
    try:
        async with (
            await WorkflowStreamsDriver.open(OPTIONS, direct) as queue,
            open_writer(uuid.uuid4().hex, queue=queue, settings=patient) as writer,
        ):
            await writer.send_chunk("before")
            await writer.flush()
            cloud.first.refusal = REFUSALS["refused"]
            cloud.move()
            await writer.send_chunk("after")
            await writer.flush()
        assert worker.returncode is None
        assert "RespondWorkflowTaskCompleted" in cloud.second.calls
    finally:
        worker.terminate()
        await worker.wait()
