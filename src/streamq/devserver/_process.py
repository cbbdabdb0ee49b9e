"""Starts one server process on a free port, waits until it serves, and stops it."""

from __future__ import annotations

import abc
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from streamq._errors import BackendUnavailableError, ConfigurationError

from ._guardian import Guardian

READY_POLL_SECONDS = 0.005
"""Interval at which to poll :meth:`DevServer.is_ready`."""

_ATTEMPTS = 3


class DevServer(abc.ABC):
    """A loopback server that runs during a ``with`` block, and never longer than this process.

    Args:
        port: Port to listen on; 0 takes a free one, and keeps it when started again after
            :meth:`kill`.
        data_dir: Directory of the server's files; by default a temporary one, removed at the end.
            A given one is kept, so that a later server can continue with it.
        stop_seconds: How long the server may take to stop before it is killed; 0 kills at once.
        start_seconds: How long the server may take until it serves, from when it is started: what
            :meth:`command` prepares before does not count.

    Attributes:
        port: The port in use.
    """

    backend: ClassVar[str]
    """Name of the server in messages."""

    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    """Signal that ends the server at once and in good order."""

    def __init__(
        self,
        *,
        port: int = 0,
        data_dir: str | os.PathLike[str] | None = None,
        stop_seconds: float = 5.0,
        start_seconds: float = 20.0,
    ) -> None:
        self.port = port
        self._wants_free_port = port == 0
        self._given_dir = data_dir
        self._stop_seconds = stop_seconds
        self._start_seconds = start_seconds
        self._dir: Path | None = None
        self._attempt = 0
        self._deadline = 0.0
        self._server: subprocess.Popen[bytes] | None = None
        self._guardian: Guardian | None = None

    @abc.abstractmethod
    def command(self, data_dir: Path) -> Sequence[str]:
        """Return the program and its arguments, for :attr:`port`; called before each launch.

        Raises:
            ConfigurationError: There is no program to run.
        """

    @abc.abstractmethod
    def answers(self, log: Path) -> bool:
        """Whether the server serves; ``log`` has its output so far. Quick, never raises."""

    def reason(self, output: str) -> str:
        """Return the part of the server's output that states why it does not start."""
        return " / ".join(output.strip().splitlines()[-3:])

    @property
    def address(self) -> str:
        """Host and port that clients connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._server is None:
            raise RuntimeError(f"the {self.backend} server is not running")
        return self._server.pid

    def start(self) -> Self:
        """Start the server and wait until it serves.

        Raises:
            ConfigurationError: There is no program to run.
            BackendUnavailableError: The server does not start; the message ends with its log.
        """
        try:
            self.launch()
            while not self.is_ready():
                time.sleep(READY_POLL_SECONDS)
        except BaseException:  # above all Ctrl-C: only this call can stop the server
            self.stop()
            raise
        return self

    def launch(self) -> None:
        """Start the server without waiting; poll :meth:`is_ready` afterwards.

        Raises:
            ConfigurationError: There is no program to run.
        """
        if self._server is None:
            self._attempt = 0
            self._launch()
            # Not before: making the command may include making the files, with a limit of its own.
            self._deadline = time.monotonic() + self._start_seconds

    def is_ready(self) -> bool:
        """Whether the launched server serves; poll it until it does.

        Raises:
            BackendUnavailableError: The server has ended, or is not ready in time; the message ends
                with its log. Nothing is left running.
        """
        if self._server is not None and self._server.poll() is None:
            if self.answers(self._log()):
                return True
            if time.monotonic() < self._deadline:
                return False
        elif self._wants_free_port and self._attempt < _ATTEMPTS:
            # Another process may have taken the free port.
            self._end(grace_seconds=0)
            self.port = 0
            self._launch()
            return False
        log = self.reason(self._log().read_text(errors="replace"))
        port = self.port
        self.stop()
        raise BackendUnavailableError(
            f"the {self.backend} server does not start on port {port}: {log or 'no output'}",
            backend=self.backend,
        )

    def stop(self) -> None:
        """Stop the server and remove its temporary files. Idempotent."""
        self._end(grace_seconds=self._stop_seconds, remove=True)
        if self._wants_free_port:
            self.port = 0

    def kill(self) -> None:
        """End the server as a crash would, keeping its files; :meth:`start` may follow."""
        self._end(grace_seconds=0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        self._attempt += 1
        if self._dir is None:
            self._dir = self._make_dir()
        if self.port == 0:
            self.port = free_port()
        try:
            self._server = self._spawn(self.command(self._dir))
            temporary = self._dir if self._given_dir is None else None
            self._guardian = Guardian(self._server.pid, directory=temporary)
        except BaseException:
            self.stop()
            raise

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        try:
            with self._log().open("wb") as output:
                # In a session of its own, so that Ctrl-C does not reach the server: this process
                # stops clients before their server.
                return subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except OSError as exc:
            raise ConfigurationError(
                f"cannot run {command[0]}: {exc.strerror}", backend=self.backend
            ) from exc

    def _make_dir(self) -> Path:
        if self._given_dir is None:
            return Path(tempfile.mkdtemp(prefix=f"streamq-{self.backend}-"))
        given = Path(self._given_dir)
        given.mkdir(mode=0o700, parents=True, exist_ok=True)
        return given

    def _log(self) -> Path:
        assert self._dir is not None
        return self._dir / "server.log"

    def _end(self, *, grace_seconds: float, remove: bool = False) -> None:
        server, self._server = self._server, None
        if server is not None:
            if grace_seconds:
                server.send_signal(self.stop_signal)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    server.wait(grace_seconds)
            server.kill()
            server.wait()
        if remove:
            if self._dir is not None and self._given_dir is None:
                shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None
        # Dismissed last: if this process is killed before, the guardian does the rest.
        guardian, self._guardian = self._guardian, None
        if guardian is not None:
            guardian.dismiss()


def free_port() -> int:
    """Return a loopback port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
