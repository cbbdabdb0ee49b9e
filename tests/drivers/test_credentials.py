"""Whatever is secret, or looks so, is masked before it is shown."""

from __future__ import annotations

import pytest

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


PEM = "-----BEGIN PRIVATE KEY-----\nhunter2AAAA\n-----END PRIVATE KEY-----"
DER = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQhunter2"

SECRETS = {
    "url": "cannot reach redis://user:hunter2@host:6379/0",
    "token in a url": "remote https://hunter2@host/repo.git",
    "query": "GET https://host/x?a=1&password=hunter2&b=2",
    "token parameter": "https://host/?access_token=hunter2",
    "signature": "https://b.s3.amazonaws.com/k?X-Amz-Signature=hunter2&X-Amz-Expires=60",
    "security token": "https://host/k?X-Amz-Security-Token=hunter2%2B",
    "credential": "X-Amz-Credential=hunter2/20260101/eu/s3/aws4_request",
    "azure": "https://x.blob.core.windows.net/c?sv=2020&sig=hunter2%3D",
    "google": "https://maps.example/?key=hunter2",
    "code": "https://host/callback?code=hunter2&state=1",
    "encoded": "next=https%3A%2F%2Fhost%3Fpassword%3Dhunter2",
    "fragment": "https://host/#access_token=hunter2",
    "connection string": "Endpoint=sb://h/;SharedAccessKeyName=n;SharedAccessKey=hunter2=",
    "account key": "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=hunter2==",
    "odbc": "Driver=x;Server=y;Uid=me;Pwd=hunter2;",
    "libpq": "host=db user=me password='hunter2 with blanks' dbname=x",
    "jaas": 'PlainLoginModule required username="me" password="hunter2";',
    "jaas, escaped": 'sasl.jaas.config: "required password=\\"hunter2\\";"',
    "json": '{"user": "me", "password": "hunter2"}',
    "json in json": '{"x": "{\\"api_key\\": \\"hunter2\\"}"}',
    "repr": "Config(user='me', api_key='hunter2', port=1)",
    "repr of bytes": "{'secret': b'hunter2'}",
    "yaml": "user: me\npassword: hunter2\n",
    "comma": "password=a,hunter2",
    "camel case": "clientSecret=hunter2 accessToken: 'x'",
    "environment": "env AWS_SECRET_ACCESS_KEY=hunter2 AWS_REGION=x",
    "our variable": "STREAMQ_KAFKA_SASL_PASSWORD=hunter2",
    "option": "psql --password hunter2 --host h",
    "bearer": "Authorization: Bearer hunter2.abc",
    "basic": "authorization: Basic aHVudGVyMg==hunter2",
    "header": "X-Api-Key: hunter2",
    "cookie": "Cookie: a=1; session=hunter2",
    "pem": f"cannot open {PEM!r}",
    "pem, in lines": f"cannot open {PEM}",
    "pem, cut": f"cannot open {PEM[:45]}",
    "pem in base64": "LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCmhunter2",
    "der": f"no such file: {DER}",
    "jwt": "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.hunter2",
    "aws id": "the key AKIAHUNTER2HUNTER2AB is unknown",
    "aws secret": "signed with 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 by us",
    "github": "ghp_hunter2hunter2hunter2hunter2hunter2",
    "model": "Incorrect API key provided: sk-proj-hunter2hunter2hunter2",
    "slack": "xoxb-hunter2-hunter2-hunter2",
}


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
