"""The processes of a run: each runs once, and one that has ended by itself is not paused."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess

import pytest

from ._processes import Child


@pytest.fixture
def started() -> Iterator[list[ForkServerProcess]]:
    """The processes that a child has made; they end with the test."""
    found: list[ForkServerProcess] = []
    yield found
    for process in found:
        process.kill()
        process.join()


@pytest.fixture
def child(started: list[ForkServerProcess]) -> Child:
    """A child that sleeps."""

    def create() -> ForkServerProcess:
        context = multiprocessing.get_context("forkserver")
        started.append(context.Process(target=time.sleep, args=(600,), daemon=True))
        return started[-1]

    return Child("sleeper", create)


def test_a_process_runs_once(child: Child, started: list[ForkServerProcess]) -> None:
    """After a crash, supervision and the end of a fault start it; a second one has no owner.

    A second gateway would find its port in use, and crash whenever it is started.
    """
    child.start()
    child.start()
    assert len(started) == 1
    child.kill()
    child.start()
    assert len(started) == 2


def test_a_process_that_has_ended_by_itself_is_not_paused(
    child: Child, started: list[ForkServerProcess]
) -> None:
    """Its id may belong to another process by now."""
    child.start()
    pid = child.pause()
    assert pid == started[0].pid
    child.resume(started[0].pid or 0)
    started[0].kill()
    started[0].join()
    assert child.has_crashed
    assert child.pause() is None
