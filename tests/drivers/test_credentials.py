"""Credentials in addresses are masked before an address is shown."""

from __future__ import annotations

import pytest

from streamq.driver import mask_credentials


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
