"""Tests that a stream is sealed only after Temporal is known to take the result or the failure.

The data converter's parts that may fail are the payload converter, the codec and the failure
converter; the limit is that of the namespace. ``producer/_recording.py`` tries all of them once,
for every shape of producer; here the shape is a coroutine.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.client import Client
from temporalio.converter import (
    DataConverter,
    DefaultFailureConverter,
    PayloadCodec,
    PayloadConverter,
)
from temporalio.exceptions import ApplicationError
from tests.temporal.support.bench import Bench
from tests.temporal.support.reading import outline

from streamq import Settings, StreamWriter
from streamq.devserver import FAST, TemporalDevServer
from streamq.driver import ChunkQueue
from streamq.temporal import streaming_activity

POISON = "poison"


class Refusing(PayloadCodec):
    """Stands for a key service that refuses some values."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        if any(POISON.encode() in each.data for each in payloads):
            raise RuntimeError("no key")
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)


class Broken(DefaultFailureConverter):
    """Encodes no failure at all."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        raise RuntimeError("no failures")


def with_converter(bench: Bench, **changes: Any) -> Bench:
    config = bench.client.config()
    config["data_converter"] = dataclasses.replace(DataConverter.default, **changes)
    return Bench(Client(**config), bench.queue, bench.settings, bench.task_queue)


@streaming_activity
async def produce(way: str, stream: StreamWriter) -> str:
    await stream.send_chunk("half")
    if activity.info().attempt > 1:
        return "done"
    if way == "result":
        return POISON
    raise ApplicationError("bad", POISON, type="Bad", non_retryable=way == "final")


@pytest.mark.parametrize(
    ("way", "kind"), [("result", "RuntimeError"), ("failure", "Bad"), ("final", "Bad")]
)
async def test_codec_that_refuses_a_value_is_heard_before_the_seal(
    bench: Bench, way: str, kind: str
) -> None:
    """A key service that was away must not leave a workflow that failed after END."""
    bench = with_converter(bench, payload_codec=Refusing())
    async with bench.worker(produce):
        events, outcome = await bench.ending(await bench.start(way, max_attempts=1))
        assert (outline(events), outcome.state, outcome.type) == (["half", "ERROR"], "FAILED", kind)
        events, outcome = await bench.ending(await bench.start(way, max_attempts=2))
    if way == "final":
        assert (outline(events), outcome.state) == (["half", "ERROR"], "FAILED")
    else:
        assert outline(events) == ["half", "RESET 2", "half", "END"]
        assert outcome.state == "COMPLETED"


async def test_failure_that_cannot_be_encoded_at_all_is_retried(bench: Bench) -> None:
    """The SDK reports another failure then, which is always retried."""
    bench = with_converter(bench, failure_converter_class=Broken)
    async with bench.worker(produce):
        events, outcome = await bench.ending(await bench.start("final", max_attempts=2))
        assert outline(events) == ["half", "RESET 2", "half", "END"]
        assert outcome.state == "COMPLETED"
        events, outcome = await bench.ending(await bench.start("final", max_attempts=1))
        assert (outline(events), outcome.state) == (["half", "ERROR"], "FAILED")


@pytest.fixture
async def narrow(queue: ChunkQueue, settings: Settings, task_queue: str) -> AsyncIterator[Bench]:
    """Return a bench on a server whose namespaces store less than others."""
    config = {**FAST, "limit.blobSize.error": "300000", "limit.blobSize.warn": "200000"}
    with TemporalDevServer(dynamic_config=config) as server:
        client = await Client.connect(server.address)
        yield Bench(client, queue, settings, task_queue)


async def test_limit_is_that_of_the_namespace(narrow: Bench) -> None:
    """Operators change it, and the default would end a stream before its activity fails."""

    @streaming_activity(name="produce")
    async def returns(size: str, stream: StreamWriter) -> str:
        await stream.send_chunk("half")
        return "x" * int(size)

    async with narrow.worker(returns):
        events, outcome = await narrow.ending(await narrow.start("400000", max_attempts=1))
        assert (outline(events), outcome.state) == (["half", "ERROR"], "FAILED")
        assert outcome.type == "PayloadsTooLarge"
        assert "more than the 300000 that" in outcome.message
        events, outcome = await narrow.ending(await narrow.start("250000", max_attempts=1))
        assert (outline(events), outcome.state) == (["half", "END"], "COMPLETED")


async def test_heartbeat_that_cannot_be_encoded_ends_both(bench: Bench) -> None:
    """The SDK cancels the activity for it, which is no cancellation that anyone has requested."""

    @streaming_activity(name="produce")
    async def beats(text: str, stream: StreamWriter) -> None:
        await stream.send_chunk("half")
        activity.heartbeat(object())
        await asyncio.Event().wait()

    async with bench.worker(beats):
        events, outcome = await bench.ending(await bench.start(max_attempts=1))
    assert outline(events) == ["half", "ERROR"]
    assert (outcome.state, outcome.type) == ("FAILED", "SerializationError")
