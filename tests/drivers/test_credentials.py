"""Whatever is secret, or looks so, is masked before it is shown."""

from __future__ import annotations

import pytest
from tests.hostile_values import SECRETS

from streamq.driver import mask_credentials, mask_data, seen_value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://user:secret@host:6379/0", "redis://***@host:6379/0"),
        ("redis://:secret@host", "redis://***@host"),
        ("cannot reach http://user:se/cr@et@host", "cannot reach http://***@host"),
        ("user:secret@one,user:secret@two", "***@one,***@two"),
        ("'user:secret@host'", "'***@host'"),
        ("proxy http://user:pa,ss@proxy:8080", "proxy http://***@proxy:8080"),
        ("proxy http://user:it's@proxy:8080", "proxy http://***@proxy:8080"),
        ("user:pa,ss@host", "***@host"),
        ("user:it's@host", "***@host"),
        ("user:1234@host", "***@host"),
        ("http://user:1234@host", "http://***@host"),
        ("redis://a:b@one:1,redis://c:d@two:2", "redis://***@one:1,redis://***@two:2"),
        ("http://127.0.0.1:4566/bucket/a:b@c", "http://127.0.0.1:4566/bucket/***@c"),
        ("http://host/me@example.com", "http://host/me@example.com"),
        ("arn:aws:iam::123:user/me@example.com", "arn:aws:iam::123:user/me@example.com"),
        ("http://host:4566/path is not a URL", "http://host:4566/path is not a URL"),
        ("somebody@example.com", "somebody@example.com"),
    ],
)
def test_no_secret_is_shown(text: str, expected: str) -> None:
    """Messages end up in logs and histories, which more people read than may know the secret."""
    assert mask_credentials(text) == expected


@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS)
def test_no_form_of_a_secret_is_shown(text: str) -> None:
    """Clients quote what they were given, each in a form of its own."""
    assert "hunter2" not in mask_credentials(text).lower()
    assert "***" in mask_credentials(text)
    assert "hunter2" not in str(mask_data({"a": [{"b": text}]})).lower()
    assert "hunter2" not in seen_value(text).lower()


@pytest.mark.parametrize(
    "text",
    [
        "STREAMQ_REDIS_KEY_PREFIX=streamq STREAMQ_KAFKA_TLS_KEY_FILE=/etc/key.pem",
        "invalid setting: STREAMQ_KAFKA_SASL_PASSWORD: needs STREAMQ_KAFKA_SASL_USERNAME",
        "max_tokens=5, completion_tokens: 7",
        "it refuses us: the API key is missing, has expired, or is for another namespace",
        "unexpected token in line 3: expected '}'",
        "order-01a20340-7d57-7aec-a6f8-6be25fb7b642/01a20340-7d57-7aec-a6f8-6be25fb7b642/default",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "basic authentication and bearer tokens are supported",
        "MIGRATION OF THE DATABASE TO ANOTHER PLACE THAT IS LONG ENOUGH TO BE A KEY",
        "http://127.0.0.1:8330/?stream=demo-1/2/default",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    """A message whose useful part is masked helps nobody."""
    assert mask_credentials(text) == text


def test_a_value_of_several_lines_is_never_shown() -> None:
    """It is the text of a key, in a variable that takes the path of a file."""
    assert seen_value("-----BEGIN\nhunter2") == "a text of 2 lines, which is not shown"
    assert "hunter2" not in seen_value(b"\xffa\nhunter2")
    assert len(seen_value("x" * 5000)) < 400
    assert seen_value("soon") == "'soon'"


def test_masking_takes_time_that_grows_with_the_text_only() -> None:
    """The text of a server's answer may have any length and form."""
    for text in ("a:" * 50_000, "password" * 20_000, "-----BEGIN " * 10_000, "x=" * 50_000):
        mask_credentials(text)
