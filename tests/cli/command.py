"""Runs the command as users do: in a process of its own, without the environment of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPResponse
from pathlib import Path
from typing import IO

import pytest

from streamq.cli import main

from .processes import processes, wait_until

DATABASE = Path(".streamq/streams.db")
"""Default file of the sqlite backend, relative to the working directory."""

TIMEOUT = 30


@dataclass(frozen=True)
class Finished:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Inside:
    """Runs the command in this process, for tests of its output only."""

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
        """Run commands one after another."""
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
        """Run commands in parallel."""
        processes = [self.start(*command, env=env) for command in commands]
        return [self.finish(process) for process in processes]

    def finish(self, process: subprocess.Popen[bytes], given: str | None = None) -> Finished:
        out, err = process.communicate(None if given is None else given.encode(), TIMEOUT)
        return Finished(process.returncode, out.decode(), (err or b"").decode())

    def alive(self) -> list[str]:
        """Return the command lines of all processes that this has started."""
        found = []
        for place in processes():
            try:
                if self.mark.encode() in (place / "environ").read_bytes():
                    command = (place / "cmdline").read_bytes()
                    if command:  # empty for a process that has ended and was not waited for
                        found.append(command.replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue  # it has ended, or belongs to another user
        return found

    def wait_until_none_alive(self) -> None:
        wait_until(lambda: not self.alive())


def is_ours(variable: str) -> bool:
    """Whether an environment variable changes the behaviour or the output of the command."""
    return variable.upper().startswith(
        ("STREAMQ_", "TEMPORAL_", "OPENAI_", "PYTHON", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
    )


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
    """Return the message of a command that failed as expected: exit code 2, exactly one line."""
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


def on_terminal(cli: Cli, *arguments: str, env: dict[str, str]) -> str:
    """Run the command on a pseudo-terminal and return its output."""
    ours, theirs = os.openpty()
    process = cli.start(*arguments, env={"TERM": "xterm", **env}, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:
        pass  # the error that Linux raises when the other side is closed
    os.close(ours)
    assert process.wait(30) == 0
    return seen.decode()
