"""The rights of the page about tenants: enough for a tenant, and none for its neighbours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest
from aiobotocore.session import get_session
from botocore.exceptions import ClientError
from tests.isolation import code_blocks, reveals_nothing, tells_whole_story, written_stream

from aws_policy_proxy import ACCOUNT, Policy, PolicyProxy
from streamq.driver import AccessDeniedError, ChunkQueue, QueueOptions, StreamId
from streamq.testing import OpenWith, open_with_fixture
from streamq.testing._harness import LONG_TTL
from streamq_aws.embedded import REGION, Ministack
from streamq_sqs import SqsDriver, SqsSettings
from streamq_sqs._naming import QueueNames

TENANTS = ("acme", "globex")
DIGEST, POLICY = code_blocks("sqs")
NAMES = QueueNames("streamq-", fifo=True)

OpenFor: TypeAlias = Callable[[str], Awaitable[ChunkQueue]]
"""Opens a queue with the rights of a tenant."""

open_with = open_with_fixture(SqsDriver)


def policy_of(tenant: str) -> Policy:
    """Return the policy of the page, with the digest that its command prints."""
    command = DIGEST.replace("python3", sys.executable, 1).replace("acme", tenant)
    done = subprocess.run(["/bin/sh", "-ec", command], capture_output=True, text=True, check=True)
    return Policy(POLICY.replace("DIGEST", done.stdout.strip()).replace("ACCOUNT", ACCOUNT))


@pytest.fixture
async def proxy(aws: Ministack) -> AsyncIterator[PolicyProxy]:
    """Return a proxy that knows the tenants of the page, each by its access key."""
    async with PolicyProxy(aws.url, {tenant: policy_of(tenant) for tenant in TENANTS}) as running:
        yield running


@pytest.fixture
def open_for(proxy: PolicyProxy, open_with: OpenWith, monkeypatch: pytest.MonkeyPatch) -> OpenFor:
    """Return a function that opens a queue in the environment of a tenant."""

    async def opened(tenant: str) -> ChunkQueue:
        monkeypatch.setenv("STREAMQ_TENANT", tenant)
        return await open_with(settings_of(proxy, tenant))

    return opened


def settings_of(proxy: PolicyProxy, tenant: str) -> SqsSettings:
    """Return settings with the access key of a tenant."""
    return SqsSettings(
        endpoint_url=proxy.url,
        credentials=lambda: {"access_key_id": tenant, "secret_access_key": "secret"},
        max_message_bytes=262_144,
    )


async def test_tenant_can_do_everything_but_list_with_its_own_streams(
    proxy: PolicyProxy, open_for: OpenFor
) -> None:
    """Rights that lack something are widened in a hurry, and then to everything."""
    await tells_whole_story(await open_for("acme"), await open_for("acme"), "acme", lists=False)
    used = {action for action, _ in proxy.used}
    assert used <= set(json.loads(POLICY)["Statement"][0]["Action"])


async def test_tenant_gets_nothing_of_another_through_the_driver(
    proxy: PolicyProxy, open_for: OpenFor
) -> None:
    """Not even whether a stream is there."""
    owner = await open_for("globex")
    theirs = await written_stream(owner, "globex")
    await reveals_nothing(await open_for("acme"), theirs, NAMES.queue)
    assert (await owner.describe(theirs)).records


async def test_tenant_gets_nothing_of_another_through_a_bare_client(
    proxy: PolicyProxy, open_for: OpenFor
) -> None:
    """Whoever has the key does not have to use streamq."""
    theirs = await written_stream(await open_for("globex"), "globex")
    session = get_session()
    async with session.create_client(
        "sqs",
        region_name=REGION,
        endpoint_url=proxy.url,
        aws_access_key_id="acme",
        aws_secret_access_key="secret",
    ) as sqs:
        await refused(sqs.list_queues())
        await refused(sqs.list_queues(QueueNamePrefix="streamq-"))
        for stream in (theirs, StreamId("globex", "absent"), StreamId("absent", "absent")):
            name = NAMES.queue(stream)
            url = f"{proxy.url}/{ACCOUNT}/{name}"
            for call in (
                sqs.get_queue_url(QueueName=name),
                sqs.create_queue(QueueName=name, Attributes={"FifoQueue": "true"}),
                sqs.list_queue_tags(QueueUrl=url),
                sqs.tag_queue(QueueUrl=url, Tags={"a": "b"}),
                sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"]),
                sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""}),
                sqs.add_permission(QueueUrl=url, Label="a", AWSAccountIds=["1"], Actions=["*"]),
                sqs.receive_message(QueueUrl=url),
                sqs.send_message(QueueUrl=url, MessageBody="x", MessageGroupId="g"),
                sqs.send_message_batch(
                    QueueUrl=url, Entries=[{"Id": "1", "MessageBody": "x", "MessageGroupId": "g"}]
                ),
                sqs.delete_message(QueueUrl=url, ReceiptHandle="any"),
                sqs.purge_queue(QueueUrl=url),
                sqs.delete_queue(QueueUrl=url),
            ):
                await refused(call)


async def refused(call: Any) -> None:
    """Expect that the policy refuses a call."""
    with pytest.raises(ClientError) as error:
        await call
    assert error.value.response["Error"]["Code"] == "AccessDenied"


def test_digest_of_the_page_is_that_of_the_driver() -> None:
    """Operators compute it before there is a queue."""
    mine = policy_of("acme")
    for stream, is_mine in ((StreamId("acme", "a"), True), (StreamId("acme-2", "a"), False)):
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{NAMES.queue(stream)}"
        assert mine.allows(("sqs:SendMessage", arn)) is is_mine


async def test_credentials_of_another_tenant_are_refused_at_open(
    proxy: PolicyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker with the wrong credentials has to say so before it takes work."""
    monkeypatch.setenv("STREAMQ_TENANT", "globex")
    with pytest.raises(AccessDeniedError, match="ListQueues"):
        await SqsDriver.open(QueueOptions(ttl=LONG_TTL), settings_of(proxy, "acme"))


async def test_doctor_says_what_a_tenant_lacks(
    proxy: PolicyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That there is no listing is no fault; it should not come as a surprise."""
    monkeypatch.setenv("STREAMQ_TENANT", "acme")
    findings = await SqsDriver.examine(QueueOptions(ttl=LONG_TTL), settings_of(proxy, "acme"))
    assert all(each.ok for each in findings)
    (listing,) = [each for each in findings if each.is_warning]
    assert "does not let us list queues" in listing.detail
