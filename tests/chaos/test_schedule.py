"""The schedule of a run: the same for the same seed, with faults of every kind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ._backends import BACKENDS, faults_of
from ._schedule import HEARTBEAT_SECONDS, TEMPORAL_LINKS, WORKERS, Fault, FaultKind, make_schedule
from ._workload import POLICIES, digest, make_plan, make_value

_ROOT = Path(__file__).parents[2]
_ALWAYS = range(20)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend that can be broken."""
    name: str = request.param
    return name


def schedule(backend: str, seed: int, seconds: float) -> list[Fault]:
    return make_schedule(seed, seconds, faults_of(backend))


def test_another_process_prints_the_same_schedule_for_the_same_seed() -> None:
    """The seed of a defect must reproduce the very faults that found it."""
    expected = [str(fault) for fault in schedule("redis", 7, 120)]
    printed = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--schedule", "--seconds", "120", "--seed", "7"],
        cwd=_ROOT,
        env={**os.environ, "PYTHONHASHSEED": "1"},  # that of this process is random
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert printed.stdout.splitlines() == expected


def test_another_seed_is_another_schedule() -> None:
    """Otherwise all seeds would be one test."""
    assert schedule("redis", 7, 120) != schedule("redis", 8, 120)
    assert schedule("redis", 7, 120) != schedule("sqlite", 7, 120)


@pytest.mark.parametrize("seed", _ALWAYS)
def test_two_minutes_hold_two_hundred_faults_of_every_kind(seed: int) -> None:
    """A run that leaves a kind out proves nothing about it."""
    faults = schedule("redis", seed, 120)
    assert len(faults) >= 230  # some will have no effect
    assert {fault.kind for fault in faults} == {each.kind for each in faults_of("redis")}


def test_a_few_seeds_break_everything_of_a_backend(backend: str) -> None:
    """Where all network faults meet one connection, a single run may leave one of them out."""
    runs = [schedule(backend, seed, 120) for seed in range(4)]
    assert all(len(run) >= 230 for run in runs)
    kinds = {fault.kind for run in runs for fault in run}
    assert kinds == {each.kind for each in faults_of(backend)}


def test_every_kind_of_fault_breaks_some_backend() -> None:
    """A kind that no backend has is never tried."""
    kinds = {each.kind for name in BACKENDS for each in faults_of(name)}
    assert kinds == set(FaultKind)


@pytest.mark.parametrize("seed", _ALWAYS)
def test_faults_of_one_target_do_not_overlap_and_end_with_the_run(seed: int, backend: str) -> None:
    """A process that is down cannot be killed, so the count of faults would be wrong."""
    free_at: Counter[str] = Counter()
    before = 0.0
    for fault in schedule(backend, seed, 60):
        assert before <= fault.at
        assert free_at[fault.target] <= fault.at
        before, free_at[fault.target] = fault.at, fault.at + fault.seconds  # type: ignore[assignment]
        assert fault.at + fault.seconds <= 60.001


def test_stale_attempts_resume_after_their_successors_took_over(backend: str) -> None:
    """The race that fencing prevents needs a silence longer than the heartbeat timeout."""
    silences = [
        fault.seconds
        for fault in schedule(backend, 7, 120)
        if (fault.kind is FaultKind.PAUSE and fault.target in WORKERS)
        or (fault.kind is FaultKind.HOLD and fault.target in TEMPORAL_LINKS.values())
    ]
    long_enough = [seconds for seconds in silences if seconds > HEARTBEAT_SECONDS + 1]
    assert len(long_enough) >= 10


def test_streams_differ_in_policy_and_values_are_never_the_same_twice() -> None:
    """Equal chunks would hide that one was delivered in place of another."""
    plans = [make_plan(7, number) for number in range(30)]
    assert {plan.policy for plan in plans} == set(POLICIES)
    digests = [
        digest(make_value(plan, seq, author))
        for plan in plans
        for seq in range(min(plan.chunks, 20))
        for author in ("epoch 1", "epoch 2")
    ]
    assert len(digests) == len(set(digests))
    assert plans == [make_plan(7, number) for number in range(30)]
