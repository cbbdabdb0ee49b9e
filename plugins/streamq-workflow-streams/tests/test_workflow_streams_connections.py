"""Tests that the backend and its worker reach a secured Temporal server by its variables alone."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
import trustme
from tests.temporal.support.secure_frontend import SecureFrontend, secure_frontend, write_files

from streamq import AccessDeniedError, BackendUnavailableError, open_reader, open_writer
from streamq.devserver import FAST, TemporalDevServer
from streamq.driver import QueueOptions, StreamId
from streamq_workflow_streams import WorkflowStreamsDriver, WorkflowStreamsSettings

KEY = "key-that-no-message-may-show"
OPTIONS = QueueOptions(ttl=timedelta(minutes=5))


async def test_streams_are_kept_on_a_secured_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A backend without a broker is worth it on Temporal Cloud, too."""
    authority = trustme.CA()
    files = write_files(tmp_path, authority, authority.issue_cert("me@example.org"))
    with (
        TemporalDevServer(dynamic_config=FAST) as server,
        secure_frontend(
            server.address, authority.issue_cert("localhost"), client_ca=authority, api_key=KEY
        ) as frontend,
    ):
        monkeypatch.setenv("HOME", str(tmp_path))
        for name, value in {
            "TEMPORAL_ADDRESS": frontend.address,
            "TEMPORAL_API_KEY": KEY,
            "TEMPORAL_TLS_SERVER_CA_CERT_PATH": str(files.ca),
            "TEMPORAL_TLS_CLIENT_CERT_PATH": str(files.cert),
            "TEMPORAL_TLS_CLIENT_KEY_PATH": str(files.key),
        }.items():
            monkeypatch.setenv(name, value)
        assert WorkflowStreamsDriver.embedded(WorkflowStreamsSettings()) is None
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "streamq_workflow_streams"), env=os.environ
        )
        try:
            await write_and_read(WorkflowStreamsSettings())
        finally:
            worker.terminate()
            await worker.wait()
        assert "ExecuteMultiOperation" in frontend.calls
        await check_refusals(frontend, monkeypatch)


async def write_and_read(settings: WorkflowStreamsSettings) -> None:
    stream = StreamId("default", uuid.uuid4().hex)
    async with await WorkflowStreamsDriver.open(OPTIONS, settings) as queue:
        async with open_writer(stream, queue=queue) as writer:
            await writer.send_chunk("kept")
        async with open_reader(stream, queue=queue) as reader:
            assert await reader.collect() == ["kept"]


async def check_refusals(frontend: SecureFrontend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPORAL_API_KEY", "old")
    with pytest.raises(AccessDeniedError, match="STREAMQ_WORKFLOW_STREAMS_API_KEY") as caught:
        await WorkflowStreamsDriver.open(OPTIONS, WorkflowStreamsSettings())
    assert frontend.address in str(caught.value)
    monkeypatch.delenv("TEMPORAL_TLS_SERVER_CA_CERT_PATH")
    with pytest.raises(BackendUnavailableError, match="not trusted"):
        await WorkflowStreamsDriver.open(OPTIONS, WorkflowStreamsSettings())
