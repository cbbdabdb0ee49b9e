"""Names of keys: each leads back to its stream, and none is shared."""

from __future__ import annotations

import pytest
from hypothesis import given
from tests.names import names

from streamq import StreamId
from streamq_redis._naming import KeySpace

NAMES = ["run/1", "a{b}c", "}", "{", "{}", "%7B", "%257D", "a%", "größe 🌊", "a:b", "*?[x]\\"]


@given(names)
def test_key_of_any_name_leads_back_to_its_stream(name: str) -> None:
    """Names are workflow ids, which may be anything."""
    keys, stream = KeySpace("streamq"), StreamId("t", name)
    assert keys.stream(keys.key(stream)) == stream


@pytest.mark.parametrize("name", NAMES)
def test_key_leads_back_to_its_stream(name: str) -> None:
    """`streamq ls` shows the names that were given."""
    keys, stream = KeySpace("streamq"), StreamId("t", name)
    assert stream == keys.stream(keys.key(stream))


@pytest.mark.parametrize("name", NAMES)
def test_hash_tag_is_the_whole_identity(name: str) -> None:
    """On a cluster the tag, from the first brace to the next closing one, decides the slot."""
    key = KeySpace("streamq").key(StreamId("t", name)).decode()
    tag = key[key.index("{") + 1 : key.index("}")]
    assert key == f"streamq:{{{tag}}}"


def test_names_never_share_a_key() -> None:
    """Two runs must never write into one stream."""
    keys = KeySpace("streamq")
    assert len(NAMES) == len({keys.key(StreamId("t", name)) for name in NAMES})


@pytest.mark.parametrize(
    "key",
    [
        *(b"streamq:x", b"other:{t/a}", b"streamq:{t}", b"streamq:{t/a}x", b"streamq:{t/%zz}"),
        b"streamq:{t/\xff}",
    ],
)
def test_foreign_keys_are_not_taken_for_streams(key: bytes) -> None:
    """Others may use the same database."""
    assert KeySpace("streamq").stream(key) is None


def test_key_that_streamq_would_write_in_another_way_is_named_once_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whoever misses a stream in a listing finds out why."""
    for _ in range(2):
        assert KeySpace("streamq").stream(b"streamq:{t/a%41}") is None
    (record,) = caplog.records
    assert "streamq:{t/a%41}" in record.getMessage()
    assert "would give this stream another key" in record.getMessage()
