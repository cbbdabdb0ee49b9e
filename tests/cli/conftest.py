"""The command as people run it: a process of its own, with nothing of our environment in it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPResponse
from pathlib import Path
from typing import IO

import pytest

from streamq.cli import main
from streamq.devserver import TemporalDevServer
from streamq.driver import ChunkQueue, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings

DATABASE = Path(".streamq/streams.db")
"""Where the sqlite backend keeps its streams by default, from the working directory."""

PROCESSES = Path("/proc")

TIMEOUT = 30


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Inside:
    """Runs the command in this process: for what it prints, where nothing else is tested."""

    directory: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Finished:
        with self.monkeypatch.context() as changed:
            changed.chdir(self.directory)
            for name in os.environ:
                if is_ours(name):
                    changed.delenv(name)
            for name, value in (env or {}).items():
                changed.setenv(name, value)
            self.capsys.readouterr()
            code = main(arguments)
            printed = self.capsys.readouterr()
        return Finished(code, printed.out, printed.err)

    def run_each(
        self, commands: Sequence[Sequence[str]], env: Mapping[str, str] | None = None
    ) -> list[Finished]:
        """Run commands one after the other."""
        return [self.run(*command, env=env) for command in commands]


@dataclass
class Cli:
    """Runs ``python -m streamq.cli`` in a directory of its own."""

    directory: Path
    environment: dict[str, str]
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
        program: Sequence[str] = (sys.executable, "-m", "streamq.cli"),
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [*program, *arguments],
            cwd=self.directory,
            env={**self.environment, **(env or {}), "CLI_TEST_MARK": self.mark},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
        )
        self.started.append(process)
        return process

    def run(
        self, *arguments: str, env: Mapping[str, str] | None = None, given: str | None = None
    ) -> Finished:
        stdin = subprocess.DEVNULL if given is None else subprocess.PIPE
        process = self.start(*arguments, env=env, stdin=stdin)
        return self.finish(process, given)

    def run_each(
        self, commands: Sequence[Sequence[str]], env: Mapping[str, str] | None = None
    ) -> list[Finished]:
        """Run commands side by side."""
        processes = [self.start(*command, env=env) for command in commands]
        return [self.finish(process) for process in processes]

    def finish(self, process: subprocess.Popen[bytes], given: str | None = None) -> Finished:
        out, err = process.communicate(None if given is None else given.encode(), TIMEOUT)
        return Finished(process.returncode, out.decode(), (err or b"").decode())

    def alive(self) -> list[str]:
        """Return the command lines of all processes that come from here."""
        found = []
        for place in processes():
            try:
                if self.mark.encode() in (place / "environ").read_bytes():
                    command = (place / "cmdline").read_bytes()
                    if command:  # else it has ended and nobody has asked how yet
                        found.append(command.replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue  # gone meanwhile, or not ours
        return found

    def wait_until_none_alive(self) -> None:
        wait_until(lambda: not self.alive())


def processes() -> list[Path]:
    """Return where the kernel tells about every process."""
    if not PROCESSES.exists():
        pytest.skip("there is no /proc to see in what is left running")
    return list(PROCESSES.glob("[0-9]*"))


def descendants(pid: int) -> dict[int, str]:
    """Return the programs that a process has started, and those that these have, by process id."""
    found: dict[int, str] = {}
    for place in processes():
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                program = (place / "cmdline").read_bytes().split(b"\0")[0].split()[0].decode()
                found |= {int(place.name): Path(program).name, **descendants(int(place.name))}
        except (OSError, IndexError):
            continue  # gone meanwhile
    return found


def is_ours(variable: str) -> bool:
    """Whether an environment variable changes what the command does or how it looks."""
    return variable.upper().startswith(
        ("STREAMQ_", "OPENAI_", "PYTHON", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
    )


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that nothing tells."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="session")
def bytecode(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One place for compiled modules, so that not every process has to compile them."""
    cache = getattr(pytestconfig, "cache", None)
    if cache is None:
        return tmp_path_factory.mktemp("bytecode")
    place: Path = cache.mkdir("streamq-bytecode")
    return place


@pytest.fixture
def cli(tmp_path: Path, bytecode: Path) -> Iterator[Cli]:
    kept = {name: value for name, value in os.environ.items() if not is_ours(name)}
    environment = {**kept, "PYTHONPYCACHEPREFIX": str(bytecode)}
    runner = Cli(tmp_path, environment)
    yield runner
    for process in runner.started:
        if process.poll() is None:
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Inside:
    return Inside(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="session")
def temporal() -> Iterator[TemporalDevServer]:
    """A Temporal server for demos to share, where starting one is not what is tested."""
    with TemporalDevServer() as server:
        yield server


@pytest.fixture
async def queue(cli: Cli) -> AsyncIterator[ChunkQueue]:
    """The sqlite backend that the commands use by default, opened from another process: this."""
    settings = SqliteSettings(path=cli.directory / DATABASE)
    opened = await SqliteDriver.open(QueueOptions(ttl=timedelta(hours=1)), settings)
    yield opened
    await opened.aclose()


def read_until(process: subprocess.Popen[bytes], text: str, *, from_stderr: bool = False) -> str:
    """Read a process's output until it contains a text."""
    pipe = process.stderr if from_stderr else process.stdout
    assert pipe is not None
    seen = b""
    while text.encode() not in seen:
        data = os.read(pipe.fileno(), 4096)
        assert data, f"ended without {text!r}: {seen.decode()}"
        seen += data
    return seen.decode()


def one_error(finished: Finished) -> str:
    """Return the message of a command that failed as it should: exit code 2, one line, no more."""
    assert finished.code == 2, finished
    lines = finished.err.splitlines()
    assert len(lines) == 1, finished.err
    assert lines[0].startswith("error: ")
    return lines[0]


def get(url: str) -> HTTPResponse:
    """Open an address on this machine."""
    answer = urllib.request.urlopen(url, timeout=10)
    assert isinstance(answer, HTTPResponse)
    return answer
