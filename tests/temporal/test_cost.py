"""Tests the published table of what a stream costs: reads the page and measures again."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from benchmarks._bill import MeteredServer, read_bill
from benchmarks._contenders import (
    Contender,
    Load,
    Stage,
    follow,
    generic,
    popping,
    signalled,
    stage,
    workflow_streams,
)
from benchmarks._stamp import CHUNK_BYTES
from temporalio.client import Client

from streamq import load_settings
from streamq.driver import QueueOptions
from streamq.memory import MemoryDriver, MemorySettings

_PAGE = Path(__file__).parents[2] / "docs/cost.md"
_BEGIN, _END = "<!-- asserted by tests/temporal/test_cost.py -->", "<!-- end -->"

_TABLE: dict[str, Contender] = {
    "`none`": generic(delivery="none", summary=False),
    "`none`, with summary": generic(delivery="none"),
    "`stream_activity`, 100 ms": follow("activity", 100),
    "`stream_activity`, local, 100 ms": follow("local", 100),
    "`stream_activity`, local, 20 ms": follow("local", 20),
    "`poll`, 100 ms": generic(delivery="poll", window_seconds=0.1),
    "`signal`, 100 ms": signalled(100),
}
_LOCAL_20, _QUICKEST = "`stream_activity`, local, 20 ms", "Workflow Streams, chunk by chunk"
_OTHERS: dict[str, Contender] = {
    "Workflow Streams, 100 ms": workflow_streams(batch_ms=100),
    _QUICKEST: workflow_streams(await_each=True, cooldown_ms=0),
    "one poll activity per chunk": popping,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A published number: exact, an upper bound, or a lower bound."""

    value: float
    relation: str

    def admits(self, found: float) -> bool:
        """Return whether a measurement agrees with it."""
        if self.relation == "≤":
            return found <= self.value
        return found >= self.value if self.relation == "≥" else found == self.value

    @classmethod
    def read(cls, cell: str) -> Figure:
        """Parse a cell such as ``11``, ``≤ 270`` or ``≥ 2,200``."""
        return cls(float(cell.replace(",", "").lstrip("≤≥")), cell[0] if cell[0] in "≤≥" else "")


def published() -> dict[str, tuple[Figure, ...]]:
    """Return the figures of the page: events, actions and bytes per byte, by delivery."""
    page = _PAGE.read_text(encoding="utf-8")
    lines = page.split(_BEGIN)[1].split(_END)[0].strip().splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: tuple(Figure.read(cell) for cell in cells) for name, *cells in rows}


@pytest.fixture(scope="module")
def metered() -> Iterator[MeteredServer]:
    with MeteredServer() as server:
        yield server


@pytest.fixture
async def where(metered: MeteredServer) -> AsyncIterator[Stage]:
    client = await Client.connect(metered.address)
    settings = load_settings(backend="memory", idle_seconds=60)
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with (
        await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex)) as queue,
        stage(client, queue, settings) as ready,
    ):
        yield ready


async def check(where: Stage, name: str, load: Load, readers: int) -> list[str]:
    """Measure one delivery; return deviations from the page, whose figures are for 1,000 chunks."""
    outcome = await (_TABLE | _OTHERS)[name](where, load, readers)
    assert outcome.complete == outcome.consumers, f"{name}: a consumer missed chunks"
    bill = await read_bill(where.client, outcome.workflow_ids)
    scale = 1_000 / load.chunks
    # Polls go by time, and a busy machine sends the chunks at less than the page's rate.
    late = max(1.0, outcome.seconds * load.rate / load.chunks)
    bytes_per_byte = round(bill.bytes / (load.chunks * CHUNK_BYTES), 2)
    found = (bill.events * scale, bill.actions * scale, bytes_per_byte)
    return [
        f"{name}, {readers} readers: {label} {value}, published: {figure} ({bill.by_kind})"
        for label, value, figure in zip(
            ("events", "actions", "bytes per byte"), found, published()[name], strict=True
        )
        if not figure.admits(value / late if figure.relation == "≤" else value)
    ]


def test_every_published_row_is_measured() -> None:
    """A row that no test checks would become wrong."""
    assert published().keys() == (_TABLE | _OTHERS).keys()


@pytest.mark.parametrize(
    "readers", [3, *(pytest.param(each, marks=pytest.mark.full) for each in (1, 10))]
)
async def test_bill_is_as_published(where: Stage, readers: int) -> None:
    """Users plan budgets with that table: it must hold for any number of readers."""
    found = await asyncio.gather(*(check(where, name, Load(), readers) for name in _TABLE))
    assert [line for lines in found for line in lines] == []


async def test_other_ways_cost_what_the_page_states(where: Stage) -> None:
    """A comparison is fair if both sides are measured: the others cost at least so much."""
    # A quarter of the chunks: each takes a round trip or several, and they add up.
    found = await asyncio.gather(*(check(where, name, Load(250), 1) for name in _OTHERS))
    assert [line for lines in found for line in lines] == []


def test_each_chunk_through_workflow_streams_makes_eight_times_our_history() -> None:
    """The page promises an eighth of the history for the delivery with the least latency."""
    quickest, ours = published()[_QUICKEST][0], published()[_LOCAL_20][0]
    assert (quickest.relation, ours.relation) == ("≥", "≤")
    assert quickest.value >= 8 * ours.value


@pytest.mark.parametrize(
    ("name", "readers"),
    [
        ("`poll`, 100 ms", 100),
        *(pytest.param(name, 1_000, marks=pytest.mark.full) for name in _TABLE),
    ],
)
async def test_many_readers_cost_nothing_in_temporal(where: Stage, name: str, readers: int) -> None:
    """Direct delivery has the bill of one reader for any audience."""
    assert await check(where, name, Load(rate=0), readers) == []


async def test_delivery_none_does_not_depend_on_chunks(where: Stage) -> None:
    """Constant means: the same for ten chunks as for ten thousand."""
    bills = []
    for chunks in (10, 10_000):
        outcome = await _TABLE["`none`"](where, Load(chunks=chunks, rate=0), 1)
        assert outcome.complete == 1
        bills.append(await read_bill(where.client, outcome.workflow_ids))
    assert (bills[0].events, bills[0].actions) == (bills[1].events, bills[1].actions) == (11, 2)


async def test_actions_are_those_that_the_server_counts(
    metered: MeteredServer, where: Stage
) -> None:
    """Actions counted from histories are only meaningful if the server agrees."""
    contenders = [
        generic(delivery="none"),
        follow("activity", 20),
        follow("local", 20),
        signalled(20),
        workflow_streams(batch_ms=20),
        popping,
    ]
    before = await metered.actions()
    outcomes = await asyncio.gather(
        *(contender(where, Load(chunks=100, rate=400), 1) for contender in contenders)
    )
    bill = await read_bill(where.client, [each for o in outcomes for each in o.workflow_ids])
    counted = await metered.actions() - before
    unseen = ("grpc_RecordActivityTaskHeartbeat", "grpc_QueryWorkflow")
    assert bill.actions == sum(n for name, n in counted.items() if name not in unseen), counted
