"""Wake-up queues and subscriptions of processes that ended without removing them."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from streamq.driver import StreamqError
from streamq_aws import aws_errors, error_code

from ._mailbox import ALIVE_TAG, MISSING_QUEUE, QUEUE_PREFIX, SUBSCRIPTION_TAG
from ._segment import BACKEND
from ._services import Services

_logger = logging.getLogger("streamq.s3sns")

ORPHAN_SECONDS = 1_800.0
"""A queue whose owner has not said for so long that it lives is removed."""

_GONE = MISSING_QUEUE | {"NotFound", "NotFoundException"}


class Orphans:
    """Finds and removes what nobody listens to any more. Any number may do so at the same time.

    Args:
        services: Where SNS, SQS and STS are.
        topic_arn: The topic whose subscriptions are looked at.
    """

    def __init__(self, services: Services, topic_arn: str) -> None:
        self._services = services
        self._topic = topic_arn

    async def remove(self) -> int:
        """Remove them; return how many queues and lone subscriptions there were.

        Raises:
            StreamqError: Queues cannot be listed or removed.
        """
        with aws_errors(BACKEND, about="wake-up queues"):
            sns = await self._services.client("sns")
            sqs = await self._services.client("sqs")
            # In this order: a queue is there before its subscription is.
            subscriptions = await self._subscriptions(sns)
            names, removed = set(), 0
            async for url in _queues(sqs):
                name = url.rpartition("/")[2]
                names.add(name)
                tags = await _tags(sqs, url)
                if time.time() - _alive(tags) > ORPHAN_SECONDS:
                    known = tags.get(SUBSCRIPTION_TAG) or subscriptions.get(name)
                    with _gone_is_fine():
                        await sqs.delete_queue(QueueUrl=url)
                    if known:
                        with _gone_is_fine():
                            await sns.unsubscribe(SubscriptionArn=known)
                    removed += 1
            for name in subscriptions.keys() - names:
                with _gone_is_fine():
                    await sns.unsubscribe(SubscriptionArn=subscriptions[name])
                removed += 1
            return removed

    async def _subscriptions(self, sns: Any) -> dict[str, str]:
        """Return the topic's subscriptions of wake-up queues of this account, by queue.

        None if that may not be asked: then those whose queue has gone stay.
        """
        found: dict[str, str] = {}
        try:
            with aws_errors(BACKEND, about=f"subscriptions of topic {self._topic}"):
                # What is listed as queues is this account's and this region's, nobody else's.
                sts = await self._services.client("sts")
                account = (await sts.get_caller_identity())["Account"]
                ours = f":sqs:{self._services.region}:{account}:{QUEUE_PREFIX}"
                token: dict[str, str] = {}
                while True:
                    answer = await sns.list_subscriptions_by_topic(TopicArn=self._topic, **token)
                    for each in answer.get("Subscriptions", ()):
                        if each.get("Protocol") == "sqs" and ours in each["Endpoint"]:
                            name = each["Endpoint"].rpartition(":")[2]
                            found[name] = each["SubscriptionArn"]
                    if not answer.get("NextToken"):
                        return found
                    token = {"NextToken": answer["NextToken"]}
        except StreamqError as exc:
            _logger.info("subscriptions without a queue are not looked for: %s", exc)
            return {}


async def _queues(sqs: Any) -> AsyncIterator[str]:
    token: dict[str, str] = {}
    while True:
        answer = await sqs.list_queues(QueueNamePrefix=QUEUE_PREFIX, MaxResults=1_000, **token)
        for url in answer.get("QueueUrls", ()):
            yield url
        if not answer.get("NextToken"):
            return
        token = {"NextToken": answer["NextToken"]}


async def _tags(sqs: Any, url: str) -> dict[str, str]:
    with _gone_is_fine():
        return dict((await sqs.list_queue_tags(QueueUrl=url)).get("Tags") or {})
    return {}


def _alive(tags: dict[str, str]) -> float:
    """Return when a queue's owner lived for sure; now, if it has never said so."""
    text = tags.get(ALIVE_TAG, "")
    return float(text) if text.isascii() and text.isdigit() else time.time()


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        if error_code(exc) not in _GONE:
            raise
