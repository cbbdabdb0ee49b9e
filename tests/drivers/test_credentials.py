"""Whatever is secret, or looks so, is masked before it is shown."""

from __future__ import annotations

import pytest
from tests.hostile_values import SECRETS

from streamq import StreamNotFoundError
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
        "unexpected token: '}' at 3",
        "Unexpected token '}' in JSON",
        "SerializationError: not a Token: score",
        "second pass: done; pass: 3 of 5",
        "bad signature: f(x)",
        "f(x: int, token: str) -> None",
        "authorization: denied for the user",
        "password=None, token=null, missing password: required",
        "the option --password needs a value",
        "the API key: see the documents",
        "assert token == None",
        "registry/app:1.2@sha256:da39a3ee",
        "mailto:somebody@example.com",
        "sk-learn-pipeline-of-many-steps",
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


@pytest.mark.parametrize(
    "text",
    [
        "password: hunter2 is wrong",
        "Invalid password 'hunter2'",
        "invalid token: hunter2",
        "not a secret: 'hunter2'",
        "if password == 'hunter2':",
        "assert token != 'hunter2'",
        "API key: hunter2",
        "error: authorization: MyScheme of hunter2",
        "the password: hunterxx.",
        "--password hunterxx now",
    ],
)
def test_what_looks_like_a_secret_in_a_sentence_is_not_shown(text: str) -> None:
    """Servers quote what they refuse."""
    masked = mask_credentials(text)
    assert "hunter" not in masked
    assert mask_credentials(masked) == masked


def test_the_name_of_a_stream_stays_whole_in_an_error() -> None:
    """It is copied, and a workflow id may look like an address with a password."""
    error = StreamNotFoundError(
        "no stream t/user:ann@example.com at redis://me:hunter2@host",
        stream="t/user:ann@example.com",
    )
    assert str(error) == "no stream t/user:ann@example.com at redis://***@host"


PARTS = [
    *("@", "a=", "://", "a:", "token: a ", "-----BEGIN ", "bearer ", "--token ", "%3Da", '\\"'),
    *("password='a\\'", "a:b@,a:/", "key: ", " ", "aA1/"),
]


@pytest.mark.parametrize(
    "part",
    [
        *("password:", "cookie:", "eyJ-", "sk-"),
        *(pytest.param(part, marks=pytest.mark.full) for part in PARTS),
    ],
)
def test_masking_takes_time_that_grows_with_the_text_only(part: str) -> None:
    """The text of a server's answer may have any length and form: 50 KB took half a minute."""
    repeated = part * (200_000 // len(part))
    for text in (repeated, f"{repeated} word word", f"{repeated}@"):
        mask_credentials(text)
