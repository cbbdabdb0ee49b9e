"""Wire format v1: golden vectors, round trips, hostile input."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import CorruptRecordError, Encoding, SealState
from streamq.records._wire import MAX_EPOCH, MAX_NUMBER, Record, RecordKind, SealBody

DOCS = Path(__file__).parents[2] / "docs"
VECTORS = json.loads((DOCS / "wire-format-v1.json").read_text())


def record_from(fields: dict[str, Any]) -> Record:
    if fields["kind"] == "open":
        return Record(
            RecordKind.OPEN,
            fields["epoch"],
            fields["restarts"],
            created_ms=fields["created_ms"],
            nonce=bytes.fromhex(fields["nonce"]),
            headers=tuple(map(tuple, fields.get("headers", []))),
        )
    seal = fields["seal"]
    return Record(
        RecordKind.DATA,
        fields["epoch"],
        fields["restarts"],
        fields["attempt"],
        fields["seq"],
        fields["offset"],
        tuple((Encoding[c["encoding"]], bytes.fromhex(c["hex"])) for c in fields["chunks"]),
        seal and SealBody(**{**seal, "state": SealState[seal["state"]]}),
        fields["resets"],
        fields.get("part", 0),
        fields.get("parts", 1),
        coded=bytes.fromhex(fields["coded"]) if "coded" in fields else None,
    )


@pytest.mark.parametrize("vector", VECTORS["valid"], ids=lambda v: v["name"])
def test_golden_vector_encodes_and_decodes_to_the_letter(vector: dict[str, Any]) -> None:
    """Stored streams and other languages depend on exactly these bytes."""
    record = record_from(vector["record"])
    assert record.encode().hex() == vector["hex"]
    assert Record.decode(bytes.fromhex(vector["hex"])) == record


@pytest.mark.parametrize("vector", VECTORS["invalid"], ids=lambda v: v["name"])
def test_invalid_vector_is_refused(vector: dict[str, Any]) -> None:
    """Bytes that are not a record must be a clean error."""
    with pytest.raises(CorruptRecordError):
        Record.decode(bytes.fromhex(vector["hex"]))


def test_documented_example_is_the_first_vector() -> None:
    """The annotated bytes in the document must be real ones."""
    page = (DOCS / "wire-format.md").read_text()
    spaced = bytes.fromhex(VECTORS["valid"][0]["hex"]).hex(" ")
    assert spaced in page


uint64 = st.integers(0, 2**64 - 1)
numbers = st.integers(0, MAX_NUMBER)
seals = st.builds(
    lambda state, kind, text, retryable, producer: (
        SealBody(state, kind, text, retryable, producer)
        if state is SealState.ERROR
        else SealBody(state, message=text, producer=producer)
    ),
    st.sampled_from(SealState),
    st.text(max_size=20),
    st.text(max_size=50),
    st.booleans(),
    st.text(max_size=20),
)
chunk_lists = st.lists(
    st.tuples(st.sampled_from(Encoding), st.binary(max_size=300)), max_size=20
).map(tuple)
data_records = st.builds(
    Record,
    st.just(RecordKind.DATA),
    st.integers(1, MAX_EPOCH),
    st.booleans(),
    st.integers(1, MAX_NUMBER),
    numbers,
    st.integers(1, MAX_NUMBER),
    chunk_lists,
    st.none() | seals,
    st.booleans(),
).filter(lambda r: bool(r.chunks or r.seal or r.resets))
part_records = st.builds(
    lambda part, more, **fields: Record(
        RecordKind.DATA, part=part, parts=part + 1 + more, **fields
    ),
    st.integers(0, 2**20),
    st.integers(0, 2**20),
    epoch=st.integers(1, MAX_EPOCH),
    restarts=st.booleans(),
    attempt=st.integers(1, MAX_NUMBER),
    seq=numbers,
    offset=st.integers(1, MAX_NUMBER),
    chunks=chunk_lists.filter(bool).map(lambda chunks: chunks[:1]),
).filter(lambda record: record.parts > 1)
open_records = st.builds(
    Record,
    st.just(RecordKind.OPEN),
    st.integers(1, MAX_EPOCH),
    st.booleans(),
    created_ms=uint64,
    nonce=st.binary(min_size=8, max_size=8),
    headers=st.dictionaries(st.text(max_size=20), st.text(max_size=50), max_size=5).map(
        lambda headers: tuple(headers.items())
    ),
)


@given(data_records | part_records | open_records)
def test_every_record_survives_the_round_trip(record: Record) -> None:
    """A reader gets every record unchanged that a writer can produce."""
    assert Record.decode(record.encode()) == record


@given(st.binary(max_size=400))
def test_random_bytes_are_a_clean_error(data: bytes) -> None:
    """A reader pointed at foreign data must not crash, hang or allocate without bound."""
    with pytest.raises(CorruptRecordError):
        Record.decode(data)


@given(data_records | part_records | open_records, st.data())
def test_any_truncation_or_flipped_bit_is_detected(record: Record, data: st.DataObject) -> None:
    """Damage in storage is an error, never altered text."""
    encoded = record.encode()
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(CorruptRecordError):
        Record.decode(encoded[:cut])
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    altered = bytearray(encoded)
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(CorruptRecordError):
        Record.decode(bytes(altered))
