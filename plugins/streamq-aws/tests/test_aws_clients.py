"""Clients find services by the usual variables, are opened once, and are closed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from streamq import AccessDeniedError, ConfigurationError, StreamqError
from streamq_aws import AwsClients, AwsSettings, aws_errors
from streamq_aws.embedded import Ministack


async def test_usual_variables_lead_to_the_services() -> None:
    """A machine where AWS tools work needs no more configuration."""
    clients = AwsClients(AwsSettings(), backend="s3sns")
    try:
        s3 = await clients.client("s3")
        await s3.create_bucket(Bucket="usual")
        assert "usual" in [each["Name"] for each in (await s3.list_buckets())["Buckets"]]
        assert clients.region == "us-east-1"
    finally:
        await clients.aclose()


async def test_settings_take_precedence_over_variables(
    monkeypatch: pytest.MonkeyPatch, aws: Ministack
) -> None:
    """A process may use two accounts; settings of streamq apply to streamq."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    settings = AwsSettings(endpoint_url=aws.url, region="eu-west-1")
    clients = AwsClients(settings, backend="s3sns")
    try:
        await (await clients.client("sqs")).list_queues()
        assert clients.region == "eu-west-1"
    finally:
        await clients.aclose()


async def test_region_variable_of_the_runtime_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers and functions have AWS_REGION, which botocore does not read."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    clients = AwsClients(AwsSettings(), backend="s3sns")
    try:
        await clients.client("sns")
        assert clients.region == "eu-north-1"
    finally:
        await clients.aclose()


async def test_missing_region_is_reported_with_the_variable_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a region there is no address to connect to."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    clients = AwsClients(AwsSettings(), backend="s3sns")
    with pytest.raises(ConfigurationError, match="AWS_DEFAULT_REGION"):
        await clients.client("sqs")
    await clients.aclose()


async def test_unknown_profile_is_reported() -> None:
    """A mistyped profile must not lead to another account."""
    clients = AwsClients(AwsSettings(profile="nowhere"), backend="s3sns")
    with pytest.raises(ConfigurationError, match="nowhere"):
        await clients.client("s3")
    await clients.aclose()


async def test_profile_supplies_credentials_and_region(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Users separate accounts and roles by profiles."""
    file = tmp_path / "config"
    file.write_text(
        "[profile other]\naws_access_key_id=a\naws_secret_access_key=b\nregion=ap-south-1\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name)
    clients = AwsClients(AwsSettings(profile="other"), backend="s3sns")
    try:
        await (await clients.client("sqs")).list_queues()
        assert clients.region == "ap-south-1"
    finally:
        await clients.aclose()


async def test_missing_credentials_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call on a machine without credentials names the variable to set."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    clients = AwsClients(AwsSettings(), backend="s3sns")
    try:
        sqs = await clients.client("sqs")
        with (
            pytest.raises(AccessDeniedError, match="AWS_ACCESS_KEY_ID"),
            aws_errors("s3sns"),
        ):
            await sqs.list_queues()
    finally:
        await clients.aclose()


async def test_closing_twice_leaves_nothing_open() -> None:
    """An unclosed connection is a leak, and a warning when the program ends."""
    clients = AwsClients(AwsSettings(), backend="s3sns")
    await (await clients.client("sqs")).list_queues()
    await clients.aclose()
    await clients.aclose()
    gc.collect()


async def _serve(host: str, port: int, answer: Callable[[], web.Response]) -> web.AppRunner:
    async def handle(_: web.Request) -> web.Response:
        return answer()

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


@pytest.mark.parametrize("status", [503, 405, 200])
async def test_server_that_is_no_longer_the_right_one_is_left(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """After a failover by name the old server stays up and keeps its connections."""
    served: Counter[str] = Counter()
    address, is_demoted = "127.0.0.1", False

    def old() -> web.Response:
        served["old"] += 1
        if is_demoted:
            return web.Response(status=status, text="not me", content_type="text/html")
        return web.Response(text="{}", content_type="application/x-amz-json-1.0")

    def new() -> web.Response:
        served["new"] += 1
        return web.Response(text="{}", content_type="application/x-amz-json-1.0")

    resolve = socket.getaddrinfo

    def moved(host: Any, *rest: Any, **more: Any) -> Any:
        return resolve(address if host == "store.test" else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", moved)
    first = await _serve("127.0.0.1", 0, old)
    port = first.addresses[0][1]
    second = await _serve("127.0.0.2", port, new)
    settings = AwsSettings(endpoint_url=f"http://store.test:{port}")
    clients = AwsClients(settings, backend="sqs")
    try:
        sqs, other = await clients.client("sqs"), await clients.client("sns")
        for client in (sqs.list_queues, sqs.list_queues):
            await client()
        with contextlib.suppress(StreamqError), aws_errors("sqs"):
            await other.list_topics()
        address, is_demoted = "127.0.0.2", True
        async with asyncio.timeout(30):
            while not served["new"]:
                with contextlib.suppress(StreamqError), aws_errors("sqs"):
                    await sqs.list_queues()
                await asyncio.sleep(0.05)  # longer, and an idle connection would be closed
        before = served["old"]
        with contextlib.suppress(StreamqError), aws_errors("sqs"):
            await other.list_topics()
        for _ in range(3):
            await sqs.list_queues()
        assert served["old"] <= before + 1, "the other client was not told"
    finally:
        await clients.aclose()
        await first.cleanup()
        await second.cleanup()


def test_every_setting_is_described() -> None:
    """The documentation is generated from these descriptions."""
    assert all(field.description for field in AwsSettings.model_fields.values())
