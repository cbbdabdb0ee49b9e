"""Clients: found by the usual variables, opened once, closed for good."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from streamq import AccessDeniedError, ConfigurationError
from streamq_aws import AwsClients, AwsSettings, aws_errors
from streamq_aws.embedded import Ministack


async def test_usual_variables_lead_to_the_services() -> None:
    """Who can run any AWS tool has configured streamq already."""
    clients = AwsClients(AwsSettings(), backend="s3sns")
    try:
        s3 = await clients.client("s3")
        await s3.create_bucket(Bucket="usual")
        assert "usual" in [each["Name"] for each in (await s3.list_buckets())["Buckets"]]
        assert clients.region == "us-east-1"
    finally:
        await clients.aclose()


async def test_settings_win_over_the_variables(
    monkeypatch: pytest.MonkeyPatch, aws: Ministack
) -> None:
    """One process may use two accounts: what is said for streamq is meant for streamq."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    settings = AwsSettings(endpoint_url=aws.url, region="eu-west-1")
    clients = AwsClients(settings, backend="s3sns")
    try:
        await (await clients.client("sqs")).list_queues()
        assert clients.region == "eu-west-1"
    finally:
        await clients.aclose()


async def test_region_of_the_runtime_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers and functions are given AWS_REGION, which botocore does not read."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    clients = AwsClients(AwsSettings(), backend="s3sns")
    try:
        await clients.client("sns")
        assert clients.region == "eu-north-1"
    finally:
        await clients.aclose()


async def test_missing_region_is_told_with_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a region there is no address to go to."""
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    clients = AwsClients(AwsSettings(), backend="s3sns")
    with pytest.raises(ConfigurationError, match="AWS_DEFAULT_REGION"):
        await clients.client("sqs")
    await clients.aclose()


async def test_unknown_profile_is_told() -> None:
    """A typing error in a profile's name must not end in somebody else's account."""
    clients = AwsClients(AwsSettings(profile="nowhere"), backend="s3sns")
    with pytest.raises(ConfigurationError, match="nowhere"):
        await clients.client("s3")
    await clients.aclose()


async def test_profile_brings_credentials_and_region(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Profiles are how people keep accounts apart, roles included."""
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


async def test_missing_credentials_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call on a machine without credentials says what to set."""
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
    """An unclosed connection is a warning at the end of a program, and a leak before that."""
    clients = AwsClients(AwsSettings(), backend="s3sns")
    await (await clients.client("sqs")).list_queues()
    await clients.aclose()
    await clients.aclose()
    gc.collect()


def test_every_setting_is_described() -> None:
    """The documentation is generated from these descriptions."""
    assert all(field.description for field in AwsSettings.model_fields.values())
