"""User values, stream names and the JSON form of events."""

import json

import pytest

from streamq import Chunk, Encoding, Gap, Reset, Seal, SealState, SerializationError, StreamId
from streamq.records._values import decode_value, encode_value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "héllo 🌍\u2028",
        b"\x00\xff",
        {"a": [1, 2.5, None, True]},
        [],
        42,
        None,
    ],
)
def test_value_survives_encoding(value: object) -> None:
    """A reader gets the value that was sent, with its type."""
    assert decode_value(*encode_value(value)) == value


def recursive() -> list[object]:
    loop: list[object] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, float("nan"), {"x": float("inf")}, recursive()],
    ids=["object", "set", "nan", "inf", "recursive"],
)
def test_value_that_cannot_be_serialised_is_a_typed_error(value: object) -> None:
    """The user must learn it at once, from a message that names the type."""
    with pytest.raises(SerializationError, match=type(value).__name__):
        encode_value(value)


def test_bytes_that_lie_about_their_encoding_are_a_typed_error() -> None:
    """A reader in one process must survive a broken writer in another language."""
    with pytest.raises(SerializationError):
        decode_value(Encoding.TEXT, b"\xff")
    with pytest.raises(SerializationError):
        decode_value(Encoding.JSON, b"{")


@pytest.mark.parametrize(
    ("tenant", "name"),
    [
        ("", "a"),
        ("a/b", "a"),
        ("a" * 65, "a"),
        ("t", ""),
        ("t", "é" * 769),
        ("t", "\ud800"),
    ],
)
def test_unusable_stream_names_are_refused(tenant: str, name: str) -> None:
    """Names become keys, paths and log lines: bounds protect all of them."""
    with pytest.raises(ValueError, match=r"tenant|stream name"):
        StreamId(tenant, name)


def test_events_have_a_json_form() -> None:
    """Gateway, CLI and poll activity all show events in this one form."""
    events: list[tuple[Chunk | Reset | Gap | Seal, dict[str, object]]] = [
        (
            Chunk(1, 1, 0, Encoding.TEXT, b"hi"),
            {"event": "chunk", "offset": 1, "attempt": 1, "seq": 0, "value": "hi"},
        ),
        (
            Chunk(2, 1, 1, Encoding.BYTES, b"\x00\x01"),
            {"event": "chunk", "offset": 2, "attempt": 1, "seq": 1, "base64": "AAE="},
        ),
        (Reset(3, 2), {"event": "reset", "offset": 3, "attempt": 2}),
        (Gap(4, 6, 2), {"event": "gap", "first": 4, "offset": 6, "attempt": 2}),
        (
            Seal(7, 2, SealState.END),
            {"event": "end", "offset": 7, "attempt": 2, "state": "END"},
        ),
        (
            Seal(7, 2, SealState.ERROR, "ValueError", "bad", True),
            {
                "event": "end",
                "offset": 7,
                "attempt": 2,
                "state": "ERROR",
                "message": "bad",
                "error_type": "ValueError",
                "retryable": True,
            },
        ),
    ]
    for event, expected in events:
        assert event.to_dict() == expected
        json.dumps(event.to_dict())
