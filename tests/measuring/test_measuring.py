"""The measuring core: a run with a fault must not become a figure."""

from __future__ import annotations

import time

import pytest
from benchmarks.measuring import Arrivals, Generator, Load

LOAD = Load(streams=2, per_second=3, seconds=1, ignored_seconds=0)


def arrived(indexes: list[int]) -> Arrivals:
    """Return the arrivals of a run in which chunks came in this order."""
    arrivals = Arrivals(LOAD, lambda: None, lambda: None)
    for index in indexes:
        arrivals.take(index % LOAD.streams, LOAD.chunk(index))
    return arrivals


@pytest.mark.parametrize(
    ("indexes", "fault"),
    [
        ([0, 1, 2, 3, 4], "1 streams did not end, such as 1"),
        ([0, 1, 4, 3, 5], "stream 0: chunk 2 came instead of 1"),
        ([0, 1, 0, 3, 2, 5, 4], "stream 0: chunk 0 came again"),
        ([0, 1, 4, 3, 2, 5], "stream 0: chunk 1 came again"),
    ],
    ids=["last missing", "one missing", "repeated", "out of order"],
)
def test_arrivals_report_what_is_wrong(indexes: list[int], fault: str) -> None:
    """A contender that loses chunks is quick; its figures would win."""
    assert fault in arrived(indexes).faults()


def test_arrivals_of_a_sound_run_have_no_fault() -> None:
    """Streams may overtake each other."""
    assert arrived([1, 0, 3, 5, 2, 4]).faults() == []


async def test_latency_counts_from_the_planned_moment() -> None:
    """A contender that blocks the generator is late for every chunk that was planned meanwhile."""
    load = Load(streams=1, per_second=1_000, seconds=0.3, ignored_seconds=0)
    begin_ns = time.monotonic_ns()

    async def begin() -> int:
        return begin_ns

    arrivals = Arrivals(load, lambda: None, lambda: None)
    generator = Generator(load, begin, lambda: None)
    async for due in generator.chunks():
        if due[0][1] == load.chunk(0):
            time.sleep(0.2)  # noqa: ASYNC251 - blocks the loop, which is the point
        for stream, chunk in due:
            arrivals.take(stream, chunk)
    assert arrivals.faults() == []
    latencies = arrivals.latencies(begin_ns)
    assert latencies.percentile_ms(50) >= 50
    assert generator.delays.percentile_ms(100) >= 190
