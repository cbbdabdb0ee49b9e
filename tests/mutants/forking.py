"""Starts pytest again and again in forks of one process that has already imported what it needs.

Most of a short run of pytest is imports. A driver's own modules are not among what is imported
here: each fork imports them itself, one of them changed. :class:`Forker` is the side of the
campaign; ``python -m tests.mutants.forking`` is the process that forks.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .drivers import ROOT
from .injected import sitecustomize

_IMPORTED = (
    *("pytest", "pytest_asyncio.plugin", "pytest_timeout", "xdist.plugin", "hypothesis"),
    *("streamq.testing", "tests.mutants.plugin"),
)
_START_SECONDS = 60.0
_END_SECONDS = 10.0


class Forker:
    """A process whose forks run pytest, one at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._child = 0

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str], output: Path, seconds: float
    ) -> int | None:
        """Run pytest with arguments and environment variables; print into a file.

        Returns:
            The exit status, negative if a signal ended it; ``None`` if it had to be killed because
            the time was up.
        """
        process = self._started()
        assert process.stdin is not None
        order = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "output": str(output),
        }
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
        self._child = self._answer(process, _START_SECONDS)["child"]
        try:
            return int(self._answer(process, seconds)["status"])
        except TimeoutError:
            self._kill_child()
            self._answer(process, _END_SECONDS)
            return None
        finally:
            self._kill_child()  # what it has started and not ended
            self._child = 0

    def close(self) -> None:
        """End the process and its fork at once; from any thread."""
        self._kill_child()
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.mutants.forking"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the campaign, which then ends this
            )
        return self._process

    def _answer(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], seconds)
        if not ready:
            raise TimeoutError
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the process that forks has ended; look at what it has printed")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _kill_child(self) -> None:
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child, signal.SIGKILL)


def _serve() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    while line := sys.stdin.readline():
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            answers.close()
            _run(order)
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        answers.write(json.dumps({"child": child}) + "\n")
        _, status = os.waitpid(child, 0)
        answers.write(json.dumps({"status": os.waitstatus_to_exitcode(status)}) + "\n")


def _run(order: Mapping[str, Any]) -> None:
    """Run pytest in the fork, and end it."""
    status = 70
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        output = os.open(order["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for at, to in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(at, to)
        os.environ.update(order["environment"])
        sitecustomize.install()
        import pytest

        status = int(pytest.main(order["arguments"]))
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)  # a mutant may have left threads that do not end


if __name__ == "__main__":
    _serve()
