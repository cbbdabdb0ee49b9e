"""Settings: which server a URL leads to, and which ones are refused."""

from __future__ import annotations

import pytest
from pydantic import SecretStr, ValidationError

from streamq import ConfigurationError, load_settings, open_queue
from streamq_redis import RedisSettings
from streamq_redis._settings import address_of, make_pool


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
