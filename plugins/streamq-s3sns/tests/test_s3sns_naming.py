"""Keys of streams, segments and objects."""

from __future__ import annotations

import pytest

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

NAMES = [*TRICKY_NAMES, ".", "..", "../a", ".hidden", "!", "!!", "!2E", "a!b"]


@pytest.mark.parametrize("name", NAMES)
def test_directory_leads_back_to_its_stream(name: str) -> None:
    """`streamq ls` has to show the original names."""
    keys, stream = KeySpace("streamq"), StreamId("t", name)
    directory = keys.directory(stream)
    assert keys.is_directory(directory)
    assert keys.stream(directory) in (stream, None)
    if len(name.encode()) <= 200:
        assert keys.stream(directory) == stream


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
    "directory",
    ["streamq/x/", "streamq/a/b/c/", "streamq/a/b%/", "streamq/.a/b/", "streamq/a/!zz/"],
)
def test_foreign_keys_are_not_taken_for_streams(directory: str) -> None:
    """Others may use the same bucket."""
    assert not KeySpace("streamq").is_directory(directory)


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


def test_ids_of_objects_say_when_their_stream_began_and_are_never_alike() -> None:
    """Two attempts upload two objects, and a sweep tells those of an earlier stream."""
    ids = {new_object_id(7) for _ in range(100)}
    assert len(ids) == 100
    assert {object_begin(each) for each in ids} == {7}
    assert segment_number("a/", f"a/{OBJECT}{ids.pop()}") is None
