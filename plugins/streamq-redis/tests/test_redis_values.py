"""Settings, names of keys, and taps: everything that needs no server."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from streamq import ConfigurationError, StreamId, load_settings, open_queue
from streamq.driver import Stored
from streamq_redis import RedisSettings
from streamq_redis._keys import KeySpace
from streamq_redis._settings import address_of, make_pool
from streamq_redis._taps import Tap

# -- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", "localhost:6379"),
        ("redis://db.example:7000/3", "db.example:7000"),
        ("rediss://:hidden@db.example", "db.example:6379"),
        ("rediss://db.example?ssl_cert_reqs=none", "db.example:6379"),
        ("unix:///run/redis.sock?db=2", "/run/redis.sock"),
        ("redis://user:hid%40den@[::1]:7000", "::1:7000"),
    ],
)
def test_address_is_shown_without_credentials(url: str, expected: str) -> None:
    """Error messages end up in tickets; they show where, and never how to get in."""
    assert expected == address_of(make_pool(SecretStr(url)))


@pytest.mark.parametrize(
    "url",
    [
        "hidden",
        "http://:hidden@localhost",
        "redis://:hidden@localhost:port",
        "redis://:hidden@localhost/zero",
        "redis://:hidden@localhost?socket_timeout=3",
        "redis://:hidden@localhost?ssl_cert_reqs=none",
        "rediss://:hidden@localhost?ssl_ca_certs=/does/not/exist.pem",
        "rediss://:hidden@localhost?ssl_nonsense=1",
        "unix://",
    ],
)
async def test_unusable_url_is_refused_without_repeating_it(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A mistyped or ignored option is told at start; the password is not."""
    monkeypatch.setenv("STREAMQ_REDIS_URL", url)
    with pytest.raises(ConfigurationError) as caught:
        async with open_queue(load_settings(backend="redis")):
            pass
    assert "STREAMQ_REDIS_URL" in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "a{b", "a}b", "a\nb"])
def test_key_prefix_with_braces_is_refused(prefix: str) -> None:
    """Braces in the prefix would move the hash tag."""
    with pytest.raises(ValidationError, match="key_prefix"):
        RedisSettings(key_prefix=prefix)


def test_every_setting_is_described() -> None:
    """The documentation is generated from these descriptions."""
    assert all(field.description for field in RedisSettings.model_fields.values())


# -- keys ----------------------------------------------------------------------------------------

NAMES = ["run/1", "a{b}c", "}", "{", "{}", "%7B", "%257D", "a%", "größe 🌊", "a:b", "*?[x]\\"]


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
    "key", [b"streamq:x", b"other:{t/a}", b"streamq:{t}", b"streamq:{t/a}x", b"streamq:{t/%zz}"]
)
def test_foreign_keys_are_not_taken_for_streams(key: bytes) -> None:
    """Others may use the same database."""
    assert KeySpace("streamq").stream(key) is None


# -- taps ----------------------------------------------------------------------------------------


def test_tap_keeps_a_bounded_tail_and_knows_what_it_dropped() -> None:
    """A reader that is slower than the ring must catch up from the server, not skip."""
    tap = Tap(b"k", (0, 0), limit=4096)
    tap.push([Stored(f"1-{i}", bytes(1000)) for i in range(1, 11)])
    assert not tap.covers((0, 0))
    assert tap.covers(tap.floor)
    kept = tap.after(tap.floor, 100, 10**6)
    assert [f"1-{i}" for i in range(8, 11)] == [record.position for record in kept]
    assert tap.after((1, 10), 100, 10**6) == []
