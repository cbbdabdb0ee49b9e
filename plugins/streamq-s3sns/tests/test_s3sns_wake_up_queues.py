"""Wake-up queues and subscriptions are removed with their process, or by a sweep."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError

from streamq.driver import Entry, QueueOptions, StreamId
from streamq.testing import OpenQueue
from streamq_s3sns import S3SnsDriver, S3SnsSettings
from streamq_s3sns._queue import S3SnsQueue
from streamq_s3sns.live_tail._orphaned_queues import ORPHAN_SECONDS
from streamq_s3sns.live_tail._wake_up_queue import ALIVE_TAG, QUEUE_PREFIX, SUBSCRIPTION_TAG

PLENTY: dict[str, int] = {"max_records": 100, "max_bytes": 10_000}


def queues(sqs: Any) -> set[str]:
    """Return the wake-up queues that exist."""
    return set(sqs.list_queues(QueueNamePrefix=QUEUE_PREFIX).get("QueueUrls", ()))


async def test_wake_up_queue_exists_while_a_reader_may_wait(
    open_queue: OpenQueue, stream: StreamId, sqs: Any
) -> None:
    """A writer needs no queue, and a reader leaves none."""
    before = queues(sqs)
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)
    await queue.append(stream, [Entry(1, 0, b"a")])
    assert queues(sqs) == before
    waiting = asyncio.ensure_future(queue.read(stream, "2-1-0", **PLENTY, max_wait=20))
    assert queue._listener is not None
    async with asyncio.timeout(10):
        while not queue._listener.is_listening:  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0.01)
    (mine,) = queues(sqs) - before
    tags = sqs.list_queue_tags(QueueUrl=mine)["Tags"]
    assert abs(float(tags[ALIVE_TAG]) - time.time()) < 60
    await queue.aclose()
    await asyncio.gather(waiting, return_exceptions=True)
    assert queues(sqs) == before


async def test_key_of_kms_encrypts_the_wake_up_queue(settings: S3SnsSettings, sqs: Any) -> None:
    """Some accounts forbid queues without one."""
    before = queues(sqs)
    encrypting = settings.model_copy(update={"notification_kms_key_id": "alias/ours"})
    async with await S3SnsDriver.open(QueueOptions(ttl=timedelta(hours=1)), encrypting) as queue:
        (mine,) = await opened(queue, sqs) - before
        found = sqs.get_queue_attributes(QueueUrl=mine, AttributeNames=["KmsMasterKeyId"])
        assert found["Attributes"]["KmsMasterKeyId"] == "alias/ours"


async def opened(queue: object, sqs: Any, besides: Collection[str] = ()) -> set[str]:
    """Have a queue listen; return the wake-up queues that exist then."""
    assert isinstance(queue, S3SnsQueue)
    assert queue._listener is not None
    queue._listener.listen()
    async with asyncio.timeout(20):
        while not queue._listener.is_listening or not queues(sqs) - set(besides):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return queues(sqs)


async def test_wake_up_queue_that_is_removed_is_created_anew(
    open_queue: OpenQueue, stream: StreamId, sqs: Any
) -> None:
    """Somebody cleans up, or the service has lost it: readers must not poll for good."""
    before = queues(sqs)
    queue = await open_queue()
    (removed,) = await opened(queue, sqs) - before
    sqs.delete_queue(QueueUrl=removed)
    assert removed not in await opened(queue, sqs, {*before, removed})


async def test_wake_up_queue_that_is_removed_as_it_is_made_is_created_anew(
    open_queue: OpenQueue, sqs: Any
) -> None:
    """Its name was remembered, and each later try failed."""
    before, queue, removed = queues(sqs), await open_queue(), asyncio.Event()
    assert isinstance(queue, S3SnsQueue)
    assert queue._listener is not None
    client = await queue._listener._queue._clients.client("sqs")

    def remove(parsed: Any, **_: object) -> None:
        if not removed.is_set():
            removed.set()
            sqs.delete_queue(QueueUrl=parsed["QueueUrl"])

    client.meta.events.register("after-call.sqs.CreateQueue", remove)
    (mine,) = await opened(queue, sqs, before) - before
    assert removed.is_set()
    assert mine


def subscriptions(aws: Any, topic: str) -> set[str]:
    """Return the subscriptions of a topic."""
    with aws.client("sns") as sns:
        found = sns.list_subscriptions_by_topic(TopicArn=topic)["Subscriptions"]
    return {each["SubscriptionArn"] for each in found}


@pytest.mark.parametrize("step", ["sqs.CreateQueue", "sqs.SetQueueAttributes", "sns.Subscribe"])
async def test_unfinished_wake_up_queue_leaves_nothing(
    open_queue: OpenQueue, aws: Any, sqs: Any, topic: str, step: str
) -> None:
    """Answers get lost at any step, and a subscription without an owner counts against a quota."""
    before = queues(sqs), subscriptions(aws, topic)
    queue = await open_queue()
    assert isinstance(queue, S3SnsQueue)
    assert queue._listener is not None
    client = await queue._listener._queue._clients.client(step.partition(".")[0])
    is_lost = asyncio.Event()

    def lose(**_: object) -> None:
        is_lost.set()
        raise EndpointConnectionError(endpoint_url=step)

    client.meta.events.register(f"after-call.{step}", lose)
    queue._listener.listen()
    async with asyncio.timeout(10):
        await is_lost.wait()
    client.meta.events.unregister(f"after-call.{step}", lose)
    await queue.aclose()
    assert (queues(sqs), subscriptions(aws, topic)) == before


async def test_sweep_removes_subscriptions_without_a_queue(
    open_queue: OpenQueue, aws: Any, sqs: Any, topic: str
) -> None:
    """They count against the account's quota, and SNS tries to deliver to them for ever."""
    names = [f"{QUEUE_PREFIX}{uuid.uuid4().hex}" for _ in range(2)]
    urls = [sqs.create_queue(QueueName=name)["QueueUrl"] for name in names]
    base = "arn:aws:sqs:us-east-1"
    with aws.client("sns") as sns:
        lone, used, foreign = (
            sns.subscribe(
                TopicArn=topic, Protocol="sqs", Endpoint=endpoint, ReturnSubscriptionArn=True
            )["SubscriptionArn"]
            for endpoint in (
                f"{base}:000000000000:{names[0]}",
                f"{base}:000000000000:{names[1]}",
                f"{base}:123456789012:{names[0]}",
            )
        )
        sqs.delete_queue(QueueUrl=urls[0])
        await (await open_queue()).sweep()
        left = subscriptions(aws, topic)
        assert lone not in left
        assert {used, foreign} <= left
        sns.unsubscribe(SubscriptionArn=used)
        sns.unsubscribe(SubscriptionArn=foreign)
    sqs.delete_queue(QueueUrl=urls[1])


async def test_sweep_removes_orphaned_queues_and_no_other(
    open_queue: OpenQueue, aws: Any, sqs: Any, topic: str
) -> None:
    """A killed process leaves its queue and its subscription."""
    old, new = str(int(time.time() - ORPHAN_SECONDS - 60)), str(int(time.time()))
    made = {}
    with aws.client("sns") as sns:
        for name, alive in (("old", old), ("new", new)):
            url = sqs.create_queue(QueueName=f"{QUEUE_PREFIX}{name}-{time.time_ns()}")["QueueUrl"]
            arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
            subscription = sns.subscribe(
                TopicArn=topic,
                Protocol="sqs",
                Endpoint=arn["Attributes"]["QueueArn"],
                ReturnSubscriptionArn=True,
            )["SubscriptionArn"]
            sqs.tag_queue(QueueUrl=url, Tags={ALIVE_TAG: alive, SUBSCRIPTION_TAG: subscription})
            made[name] = (url, subscription)
        await (await open_queue()).sweep()
        assert made["old"][0] not in queues(sqs)
        assert made["new"][0] in queues(sqs)
        left = subscriptions(aws, topic)
        assert made["old"][1] not in left
        assert made["new"][1] in left
