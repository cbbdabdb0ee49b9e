"""Keys of streams, segments and objects."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import example, given
from tests.names import names

from streamq import StreamId
from streamq.testing.checks import TRICKY_NAMES
from streamq_s3sns._naming import (
    ANNOUNCEMENT,
    LARGEST_NUMBER,
    OBJECT,
    KeySpace,
    new_object_id,
    object_begin,
    segment_name,
    segment_number,
)
from streamq_s3sns._segment import (
    METADATA,
    NAME_METADATA,
    PACK_METADATA,
    Checkpoint,
    encode_pack,
)

NAMES = [*TRICKY_NAMES, ".", "../a", ".hidden", "!", "!!", "!2E", "a!b"]


@given(names)
@example("/" * 1536)
@example("é" * 768)
@example("é" * 512 + "a")
def test_directory_and_metadata_lead_back_to_their_stream(name: str) -> None:
    """`streamq ls` has to show the original names; all metadata of an object have 2,048 bytes."""
    keys, stream = KeySpace("streamq"), StreamId("t", name)
    directory, kept = keys.directory(stream), keys.kept_name(stream)
    assert keys.is_directory(directory)
    assert keys.stream(directory, kept) == stream
    largest = Checkpoint(10**12, 2**63, 2**63, 10**12, 10**13, 10**13, 10**12, 10**15)
    metadata = {METADATA: largest.encode(), PACK_METADATA: encode_pack(10**12, 1_000)}
    metadata |= {NAME_METADATA: kept} if kept else {}
    assert sum(len(key) + len(value) for key, value in metadata.items()) <= 2_048
    assert kept.isascii()


def test_names_that_were_stored_before_are_still_found() -> None:
    """The key of a stream, and the name beside it, are what earlier versions stored."""
    keys = KeySpace("streamq")
    assert keys.directory(StreamId("t", ".a/b c")) == "streamq/t/!2Ea!2Fb!20c/"
    stream = StreamId("t", "é" * 512)
    digest = hashlib.sha256(stream.name.encode()).hexdigest()[:32]
    assert keys.directory(stream) == f"streamq/t/{'!C3!A9' * 100}!!{digest}/"
    assert keys.kept_name(stream) == base64.urlsafe_b64encode(stream.name.encode()).decode()


@pytest.mark.parametrize("name", NAMES)
def test_keys_fit_and_are_plain(name: str) -> None:
    """S3 accepts 1024 bytes, and plain characters are escaped nowhere."""
    directory = KeySpace("p" * 128).directory(StreamId("t" * 64, name))
    key = f"{directory}{OBJECT}{new_object_id(LARGEST_NUMBER)}"
    assert len(key.encode()) <= 1024
    assert key.isascii()
    assert "%" not in key
    assert not {".", ".."} & set(key.split("/"))


def test_names_never_share_a_directory() -> None:
    """Two runs must never write into one stream, however long and alike their names are."""
    keys = KeySpace("streamq")
    names = [*NAMES, "n" * 1023, "n" * 1022 + "o"]
    assert len({keys.directory(StreamId("t", name)) for name in names}) == len(names)
    assert keys.directory(StreamId(".", "a")) != keys.directory(StreamId("..", "a"))


@pytest.mark.parametrize(
    ("directory", "kept"),
    [
        *((f"streamq/{each}/", "") for each in ("a/b%", ".a/b", "a/!zz", "a/!ED!A0!80", "a/b!!c")),
        *((f"streamq/a/b!!{'0' * 32}/", each) for each in ("!", "Yg==", "~", "~_w==", "é")),
    ],
)
def test_foreign_keys_are_not_taken_for_streams(directory: str, kept: str) -> None:
    """Others may use the same bucket."""
    keys = KeySpace("streamq")
    assert keys.is_directory(directory)
    assert keys.stream(directory, kept) is None
    assert not keys.is_directory("streamq/x/")
    assert not keys.is_directory("streamq/a/b/c/")


def test_newest_segment_sorts_first() -> None:
    """A listing has to begin where the stream ends."""
    names = [segment_name(number) for number in (1, 2, 9, 10, 999, 1000, LARGEST_NUMBER)]
    assert sorted(names, reverse=True) == names
    assert [segment_number("a/b/", f"a/b/{name}") for name in names] == [
        *(1, 2, 9, 10, 999, 1000, LARGEST_NUMBER)
    ]
    assert min(names) > "." > max(ANNOUNCEMENT, OBJECT + "z")
    assert segment_number("a/", f"a/{ANNOUNCEMENT}") is None
    assert segment_number("a/", f"a/b/{segment_name(1)}") is None


def test_ids_of_objects_have_the_beginning_of_their_stream_and_are_unique() -> None:
    """Two attempts upload two objects, and a sweep distinguishes those of an earlier stream."""
    ids = {new_object_id(7) for _ in range(100)}
    assert len(ids) == 100
    assert {object_begin(each) for each in ids} == {7}
    assert segment_number("a/", f"a/{OBJECT}{ids.pop()}") is None
