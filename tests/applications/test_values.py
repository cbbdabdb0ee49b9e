"""Records activities with other converters, codecs and limits: values pass through as always."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

import pydantic
import pytest
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.exceptions import ApplicationError
from tests.applications.activities import Token, fail, seal_early, write, write_and_log

from streamq import (
    ChunkTooLargeError,
    SealedError,
    SealState,
    SerializationError,
    StreamWriter,
    load_settings,
)
from streamq.temporal import streaming_activity
from streamq.testing import FaultyQueue, record


class Price(pydantic.BaseModel):
    amount: float


@streaming_activity
async def price(request: Price, stream: StreamWriter[Price]) -> Price:
    await stream.send_chunk(Price(amount=request.amount * 2))
    return Price(amount=request.amount * 3)


class Reversed(PayloadCodec):
    """Makes payloads unreadable, as an encrypting codec does."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"reversed"}, data=each.SerializeToString()[::-1])
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(each.data[::-1]) for each in payloads]


REVERSED = DataConverter(payload_codec=Reversed())


async def test_arguments_chunks_and_result_pass_through_the_converter() -> None:
    """A model that the converter cannot decode fails here, and not at the first workflow."""
    recorded = await record(price, Price(amount=2), data_converter=pydantic_data_converter)
    assert recorded.chunks == [Price(amount=4)]
    assert recorded.result == Price(amount=6)
    wrong = await record(price, {"cost": 2}, data_converter=pydantic_data_converter)
    assert isinstance(wrong.failure, ApplicationError)
    assert "decoding arguments" in str(wrong.failure)


async def test_configured_converter_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the application configures for its readers holds for its tests."""
    module = ModuleType("kit_converters")
    module.converter = pydantic_data_converter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kit_converters", module)
    monkeypatch.setenv("STREAMQ_DATA_CONVERTER", "kit_converters:converter")
    recorded = await record(price, Price(amount=2))
    assert recorded.result == Price(amount=6)


async def test_codec_encodes_what_is_stored(streamq_queue: FaultyQueue) -> None:
    """An author may assert that nothing readable leaves the activity."""
    recorded = await record(write_and_log, "Oslo", queue=streamq_queue, data_converter=REVERSED)
    assert recorded.chunks[0] == Token("Oslo the", 3)
    assert recorded.streams["log"].chunks == ["begins", "ends"]
    stored = b"".join(
        entry.data for entries in streamq_queue.appends for entry in entries if entry.index
    )
    assert stored
    assert b"Oslo" not in stored


async def test_value_that_no_converter_encodes_is_refused() -> None:
    """The writer is the real one."""

    @streaming_activity
    async def wrong(stream: StreamWriter[object]) -> None:
        await stream.send_chunk(object())

    recorded = await record(wrong)
    assert isinstance(recorded.error, SerializationError)
    assert recorded.ending is SealState.ERROR


async def test_result_that_no_converter_encodes_fails_the_attempt() -> None:
    """Before anything is sealed, as on a worker."""
    recorded = await record(fail, "result")
    assert recorded.outline == ["begins"]
    assert recorded.is_retried


async def test_configured_limits_hold() -> None:
    """A chunk that production refuses is refused here."""
    recorded = await record(write, "x" * 100, settings=load_settings(max_chunk_bytes=50))
    assert isinstance(recorded.error, ChunkTooLargeError)
    assert recorded.outline[-1].startswith("ERROR ChunkTooLargeError")


async def test_stream_that_was_sealed_takes_nothing_more() -> None:
    """The classic mistake: finish() in the middle of the function."""
    recorded = await record(seal_early)
    assert recorded.outline == ["all of it", "END"]
    assert isinstance(recorded.error, SealedError)


async def test_batch_mode_delivers_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers of a failed attempt see nothing of it."""
    monkeypatch.setenv("STREAMQ_MODE", "batch")
    recorded = await record(write, "Oslo", fail_after=[2, None])
    assert recorded.resets == 0
    assert len(recorded.chunks) == 4
