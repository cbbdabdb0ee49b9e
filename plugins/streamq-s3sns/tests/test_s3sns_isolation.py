"""The rights of the page about tenants: enough for a tenant, and none for its neighbours."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiobotocore.session import get_session
from botocore.exceptions import ClientError
from tests.isolation import (
    code_blocks,
    finds_nothing,
    tells_whole_story,
    written_stream,
)

from aws_policy_proxy import Policy, PolicyProxy
from streamq.driver import AccessDeniedError
from streamq.testing import OpenWith, open_with_fixture
from streamq_aws.embedded import REGION, Ministack
from streamq_s3sns import S3SnsDriver, S3SnsSettings
from streamq_s3sns._naming import KeySpace

TENANTS = ("acme", "globex")
POLICY, ENVIRONMENT = code_blocks("s3sns")

open_with = open_with_fixture(S3SnsDriver)


def bucket_of(tenant: str) -> str:
    """Return the bucket that the page gives a tenant."""
    lines = ENVIRONMENT.replace("acme", tenant).splitlines()
    return dict(line.split("=", 1) for line in lines)["STREAMQ_S3SNS_BUCKET"]


@pytest.fixture(scope="module")
def buckets(aws: Ministack) -> None:
    """Create the buckets of the tenants."""
    with aws.client("s3") as client:
        for tenant in TENANTS:
            client.create_bucket(Bucket=bucket_of(tenant))


@pytest.fixture
async def proxy(aws: Ministack, buckets: None) -> AsyncIterator[PolicyProxy]:
    """Return a proxy that knows the tenants of the page, each by its access key."""
    policies = {tenant: Policy(POLICY.replace("acme", tenant)) for tenant in TENANTS}
    async with PolicyProxy(aws.url, policies) as running:
        yield running


def settings_of(proxy: PolicyProxy, tenant: str, bucket: str = "") -> S3SnsSettings:
    """Return settings with the access key of a tenant, and its bucket or that of another one."""
    return S3SnsSettings(
        endpoint_url=proxy.url,
        credentials=lambda: {"access_key_id": tenant, "secret_access_key": "secret"},
        bucket=bucket or bucket_of(tenant),
    )


async def test_tenant_can_do_everything_with_its_own_streams(
    proxy: PolicyProxy, open_with: OpenWith
) -> None:
    """Rights that lack something are widened in a hurry, and then to everything."""
    settings = settings_of(proxy, "acme")
    await tells_whole_story(await open_with(settings), await open_with(settings), "acme")
    listed = {action for each in json.loads(POLICY)["Statement"] for action in each["Action"]}
    assert {action for action, _ in proxy.used} == listed - {"s3:AbortMultipartUpload"}


async def test_tenant_finds_nothing_of_another_through_the_driver(
    proxy: PolicyProxy, open_with: OpenWith
) -> None:
    """Neither in its own bucket nor in that of the other."""
    owner = await open_with(settings_of(proxy, "globex"))
    theirs = await written_stream(owner, "globex")
    before = await owner.describe(theirs, last=9)
    await finds_nothing(await open_with(settings_of(proxy, "acme")), theirs)
    with pytest.raises(AccessDeniedError):
        await open_with(settings_of(proxy, "acme", bucket_of("globex")))
    assert (await owner.describe(theirs, last=9)).last == before.last


async def test_tenant_gets_nothing_of_another_through_a_bare_client(
    proxy: PolicyProxy, open_with: OpenWith
) -> None:
    """Whoever has the key does not have to use streamq."""
    owner = await open_with(settings_of(proxy, "globex"))
    theirs = KeySpace("streamq").directory(await written_stream(owner, "globex"))
    async with get_session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=proxy.url,
        aws_access_key_id="acme",
        aws_secret_access_key="secret",
    ) as s3:
        bucket, own = bucket_of("globex"), bucket_of("acme")
        await refused(s3.list_buckets())
        await refused(s3.list_objects_v2(Bucket=bucket))
        await refused(s3.head_bucket(Bucket=bucket))
        await refused(s3.delete_bucket(Bucket=bucket))
        (segment, *_) = await owner_keys(proxy, bucket, theirs)
        for key in (segment, f"{theirs}absent"):
            for call in (
                s3.list_objects_v2(Bucket=bucket, Prefix=key),
                s3.get_object(Bucket=bucket, Key=key),
                s3.head_object(Bucket=bucket, Key=key),
                s3.put_object(Bucket=bucket, Key=key, Body=b"x"),
                s3.delete_object(Bucket=bucket, Key=key),
                s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key}]}),
                s3.create_multipart_upload(Bucket=bucket, Key=key),
                s3.copy_object(Bucket=own, Key="a", CopySource={"Bucket": bucket, "Key": key}),
            ):
                await refused(call)


async def owner_keys(proxy: PolicyProxy, bucket: str, prefix: str) -> list[str]:
    """Return the keys of objects, with the rights of their owner."""
    async with get_session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=proxy.url,
        aws_access_key_id="globex",
        aws_secret_access_key="secret",
    ) as s3:
        found: Any = await s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
        return [each["Key"] for each in found["Contents"]]


async def refused(call: Any) -> None:
    """Expect that the policy refuses a call."""
    with pytest.raises(ClientError) as error:
        await call
    assert error.value.response["Error"]["Code"] in ("AccessDenied", "403")
