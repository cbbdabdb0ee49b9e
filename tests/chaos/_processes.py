"""Starts, kills and pauses processes; none of them outlives the run.

They are forked from a server process that has imported everything, so that a new one starts within
milliseconds and a run can kill many of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from streamq.devserver import DevServer, Guardian

from ._gateway import run_gateway
from ._readers import run_reader
from ._schedule import GATEWAY, WORKERS
from ._setup import Setup
from ._worker import run_worker

_PRELOAD = [f"{__package__}.{module}" for module in ("_gateway", "_readers", "_worker")]
_JOIN_SECONDS = 10.0


class Victim:
    """The owner of a process that can be killed, paused and started again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_wanted = False
        """Whether it should be running now."""

    @property
    def pid(self) -> int:
        """Id of the running process."""
        raise NotImplementedError

    def start(self) -> None:
        """Start it, or start it again."""
        raise NotImplementedError

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it has ended."""
        raise NotImplementedError

    def pause(self) -> int | None:
        """Stop it with SIGSTOP.

        Returns:
            The process id, which :meth:`resume` needs; ``None`` if it has ended by itself.
        """
        os.kill(self.pid, signal.SIGSTOP)
        return self.pid

    def resume(self, pid: int) -> None:
        """Let a paused process run again, unless it has been killed."""
        if self.is_wanted and self.pid == pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class ServerVictim(Victim):
    """A server of :mod:`streamq.devserver` on a fixed port."""

    def __init__(self, name: str, server: DevServer) -> None:
        super().__init__(name)
        self._server = server
        self.is_wanted = True

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._server.pid

    def start(self) -> None:
        """Start it on its previous data."""
        self._server.start()
        self.is_wanted = True

    def kill(self) -> None:
        """End it as a crash would."""
        self.is_wanted = False
        self._server.kill()


class Child(Victim):
    """A process of this program."""

    def __init__(self, name: str, create: Callable[[], ForkServerProcess]) -> None:
        super().__init__(name)
        self._create = create
        self._process: ForkServerProcess | None = None
        self._lock = threading.Lock()  # start and kill are called in threads
        self._is_over = False

    @property
    def pid(self) -> int:
        """Id of the running process."""
        if self._process is None or self._process.pid is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def has_crashed(self) -> bool:
        """Whether it has ended by itself."""
        return self.is_wanted and self._process is not None and not self._process.is_alive()

    def start(self) -> None:
        """Start it, unless it runs: after a crash, two may ask for it."""
        with self._lock:
            if self._is_over or (self._process is not None and self._process.is_alive()):
                return
            self._process = self._create()
            self._process.start()
            self.is_wanted = True

    def kill(self) -> None:
        """End it with SIGKILL."""
        with self._lock:
            self._kill()

    def pause(self) -> int | None:
        """Stop it with SIGSTOP, unless it has ended by itself: the run counts that as a crash."""
        with self._lock, contextlib.suppress(ProcessLookupError):
            if not self.has_crashed:
                return super().pause()
        return None

    def end(self) -> None:
        """End it for good."""
        with self._lock:
            self._is_over = True
            self._kill()

    def _kill(self) -> None:
        self.is_wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.join(_JOIN_SECONDS)


class Fleet:
    """All processes of this program; a context manager, at whose end none of them runs."""

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}
        self._context = multiprocessing.get_context("forkserver")
        self._leader: subprocess.Popen[bytes] | None = None
        self._guardian: Guardian | None = None

    def add(self, name: str, setup: Setup) -> Child:
        """Add a process and start it; its name determines its role."""
        child = self.children[name] = Child(name, lambda: self._create(name, setup))
        child.start()
        return child

    def _create(self, name: str, setup: Setup) -> ForkServerProcess:
        assert self._leader is not None
        return self._context.Process(
            target=_run, args=(name, setup, self._leader.pid), name=name, daemon=True
        )

    def __enter__(self) -> Self:
        # Leads the process group that all of them join, so that they end together even if this
        # process is killed. In a group of their own, they do not get Ctrl-C.
        self._leader = subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0)
        self._guardian = Guardian(self._leader.pid)
        self._context.set_forkserver_preload(_PRELOAD)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for child in self.children.values():
            child.end()
        if self._leader is not None:
            self._leader.communicate()
        if self._guardian is not None:
            self._guardian.dismiss()


def _run(name: str, setup: Setup, group: int) -> None:
    """Run the role of one process; called in the forked process."""
    os.setpgid(0, group)
    _write_to(setup.log_path(name))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(process)d %(message)s")
    role: Callable[[Setup, str], Awaitable[None]] = run_reader
    if name in WORKERS:
        role = run_worker
    elif name == GATEWAY:
        role = run_gateway
    asyncio.run(_be(role, setup, name))


async def _be(role: Callable[[Setup, str], Awaitable[None]], setup: Setup, name: str) -> None:
    await role(setup, name)


def _write_to(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
