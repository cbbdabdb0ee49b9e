"""Bodies of requests: how large they may be, and where they are never written."""

from __future__ import annotations

import logging

import httpx
import pytest
from tests.temporal.a2a.replicas import Stage

_HEADERS = {"A2A-Version": "1.0", "Content-Type": "application/json"}


@pytest.mark.parametrize("path", ["/", "/message:send"])
async def test_a_body_that_is_too_large_is_refused(stage: Stage, path: str) -> None:
    """Whatever a client sends, a replica keeps no more of it than a bound."""
    replica = await stage.replica()
    async with httpx.AsyncClient(base_url=replica.url, headers=_HEADERS, timeout=20) as http:
        refused = await http.post(path, content=b" " * (5 * 2**20))
        after = await http.get("/tasks")
    assert (refused.status_code, after.status_code) == (200 if path == "/" else 413, 200)
    assert refused.json()["error"]["code"] == (-32602 if path == "/" else 400)
    assert "4194304 bytes" in refused.text


@pytest.mark.parametrize("path", ["/", "/message:send", "/message:stream"])
async def test_a_body_that_is_no_text_is_refused(stage: Stage, path: str) -> None:
    """Bytes of another encoding are the client's mistake, and the error says so."""
    replica = await stage.replica()
    async with httpx.AsyncClient(base_url=replica.url, headers=_HEADERS) as http:
        refused = await http.post(path, content=b'{"id": "\xff"}')
    error = refused.json()["error"]
    assert error["code"] == (-32600 if path == "/" else 400)
    assert "not UTF-8" in error["message"]


@pytest.mark.parametrize("path", ["/", "/message:send"])
async def test_deeply_nested_json_is_a_bad_request(stage: Stage, path: str) -> None:
    """It neither ends the replica nor shows how it is built."""
    replica = await stage.replica()
    body = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    async with httpx.AsyncClient(base_url=replica.url, headers=_HEADERS, timeout=20) as http:
        refused = await http.post(path, content=body)
        after = await http.get("/tasks")
    assert "error" in refused.json()
    assert "Traceback" not in refused.text
    assert after.status_code == 200


@pytest.mark.parametrize("path", ["/", "/message:send"])
async def test_no_level_of_logging_writes_credentials(
    stage: Stage, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK writes refused requests at its lowest level."""
    replica = await stage.replica()
    config = {"url": "https://10.0.0.1/", "token": "s3cr3t-token"}
    message = {"messageId": "1", "role": "ROLE_USER", "parts": [{"text": "s3cr3t text"}]}
    params = {"message": message, "configuration": {"taskPushNotificationConfig": config}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
    with caplog.at_level(logging.DEBUG):
        async with httpx.AsyncClient(base_url=replica.url, headers=_HEADERS) as http:
            refused = await http.post(path, json=body if path == "/" else params)
    assert "public internet" in refused.text
    assert "s3cr3t" not in caplog.text
