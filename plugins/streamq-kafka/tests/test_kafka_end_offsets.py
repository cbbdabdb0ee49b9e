"""Finding where partitions end, without a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
from aiokafka.structs import TopicPartition

from streamq_kafka.requests import _end_offsets
from streamq_kafka.requests._cluster import Cluster
from streamq_kafka.requests._end_offsets import EndOffsets
from streamq_kafka.requests._fetched import Fetched

ONE, TWO = TopicPartition("t", 1), TopicPartition("t", 2)


class _Leader:
    """Answers that every partition ends at 7, after calling a function of the test."""

    def __init__(self) -> None:
        self.metadata = self
        self.meanwhile: Callable[[], None] = lambda: None

    def known_leader(self, partition: TopicPartition) -> int:
        return 0

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        self.meanwhile()
        return dict.fromkeys(partitions, 5)

    async def fetch_from_leaders(
        self, wanted: Iterable[tuple[TopicPartition, int]], **_: Any
    ) -> dict[TopicPartition, Fetched]:
        asked = list(wanted)
        self.meanwhile()
        return {
            partition: Fetched(partition, offset, None, 7, 0, b"data")
            for partition, offset in asked
        }


async def test_partition_forgotten_during_a_request_affects_no_other() -> None:
    """A topic that was recreated must not fail the readers of other topics at its leader."""
    leader = _Leader()
    ends = EndOffsets(cast("Cluster", leader), 5.0)
    ends.note(TWO, 3)

    def forget() -> None:
        ends.forget(ONE)
        ends.forget(TWO)

    leader.meanwhile = forget
    assert [await ends.get(ONE), await ends.get(TWO)] == [7, 7]


async def test_records_that_came_with_an_end_are_dropped_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a topic for each tenant there are thousands of partitions, most of them idle."""
    ends = EndOffsets(cast("Cluster", _Leader()), 5.0)
    await ends.get(ONE)
    assert ends.fetched(ONE, 5) is not None
    monkeypatch.setattr(_end_offsets, "_KEPT_SECONDS", 0.0)
    await ends.get(TWO)
    assert ends.fetched(ONE, 5) is None
