"""Runs ``streamq a2a serve`` as a process, with an agent of a file."""

from __future__ import annotations

import re
import signal
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from a2a.client import ClientConfig, ClientFactory
from a2a.types.a2a_pb2 import AgentCard, TaskState
from google.protobuf.json_format import ParseDict
from temporalio.client import Client
from tests.temporal.a2a.processes import AGENT, serving
from tests.temporal.a2a.replicas import Stage, request, streamed, text_of

from streamq import load_settings
from streamq.driver import QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings


async def test_an_agent_of_a_file_is_served(
    client: Client, temporal_address: str, tmp_path: Path
) -> None:
    """Ten lines in a file and one command are an agent that any client finds."""
    path, settings = tmp_path / "s.db", load_settings(backend="sqlite")
    async with await SqliteDriver.open(
        QueueOptions(ttl=timedelta(minutes=5)), SqliteSettings(path=path)
    ) as queue:
        stage = Stage(client, queue, settings)
        (tmp_path / "filed.py").write_text(AGENT.format(queue=stage.task_queue, host="127.0.0.1:1"))
        process = serving(
            tmp_path,
            "filed:agent",
            "--port",
            "0",
            STREAMQ_BACKEND="sqlite",
            STREAMQ_SQLITE_PATH=str(path),
            STREAMQ_TEMPORAL_ADDRESS=temporal_address,
        )
        try:
            assert process.stdout is not None
            printed = process.stdout.readline()
            url = re.findall(r"http://\S+", printed)[0]
            assert "serves agent filed" in printed
            async with stage.worker(), httpx.AsyncClient(timeout=60) as http:
                found = (await http.get(f"{url}/.well-known/agent-card.json")).json()
                assert found["name"] == "filed"
                config = ClientConfig(httpx_client=http)
                for each in found["supportedInterfaces"]:
                    each["url"] = f"{url}/"
                agent = ClientFactory(config).create(ParseDict(found, AgentCard()))
                events = await streamed(agent, request("a b"))
        finally:
            process.send_signal(signal.SIGTERM)
            _, complaints = process.communicate(timeout=20)
    assert text_of(events) == "a b "
    assert events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED
    assert process.returncode == 0, complaints


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere:agent", "cannot be loaded"),
        ("nothing", "write MODULE:AGENT"),
        ("nowhere.py:agent", "without .py"),
        ("json:dumps", "not Agent"),
    ],
)
def test_a_wrong_name_is_one_line(tmp_path: Path, name: str, reason: str) -> None:
    """Whoever mistypes a name gets advice, and no traceback."""
    _, complaint = serving(tmp_path, name).communicate(timeout=60)
    assert reason in complaint
    assert "Traceback" not in complaint


def test_a_server_on_the_network_takes_tokens_and_warns(
    temporal_address: str, tmp_path: Path
) -> None:
    """The settings of the gateway protect it, and what they cannot do is said at the start."""
    (tmp_path / "filed.py").write_text(AGENT.format(queue="none", host="127.0.0.1:1"))
    process = serving(
        tmp_path,
        "filed:agent",
        *("--host", "0.0.0.0", "--port", "0", "--grpc-port", "0"),
        STREAMQ_BACKEND="sqlite",
        STREAMQ_SQLITE_PATH=str(tmp_path / "s.db"),
        STREAMQ_TEMPORAL_ADDRESS=temporal_address,
        STREAMQ_TOKEN_KEY="s" * 40,
    )
    try:
        assert process.stdout is not None
        url = re.findall(r"http://\S+", process.stdout.readline())[0]
        public = httpx.get(f"{url}/.well-known/agent-card.json")
        refused = httpx.get(f"{url}/tasks", headers={"A2A-Version": "1.0"})
    finally:
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=20)
    assert (public.status_code, refused.status_code) == (200, 401)
    assert "takes tokens on 0.0.0.0 without encryption" in complaints
    assert "asks for no credentials" not in complaints


def test_a_backend_of_one_process_is_warned_of(temporal_address: str, tmp_path: Path) -> None:
    """Tasks would wait for events that stay in the worker's memory."""
    (tmp_path / "filed.py").write_text(AGENT.format(queue="none", host="127.0.0.1:1"))
    process = serving(
        tmp_path,
        *("filed:agent", "--port", "0"),
        STREAMQ_BACKEND="memory",
        STREAMQ_TEMPORAL_ADDRESS=temporal_address,
    )
    try:
        assert process.stdout is not None
        url = re.findall(r"http://\S+", process.stdout.readline())[0]
        httpx.get(f"{url}/.well-known/agent-card.json")
    finally:
        process.send_signal(signal.SIGTERM)
        _, complaints = process.communicate(timeout=20)
    assert "backend memory keeps the streams of one process only" in complaints
