"""Removes wake-up queues and subscriptions of processes that ended without removing them.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

from streamq.driver import StreamqError
from streamq_aws import error_code
from streamq_s3sns._errors import client_errors
from streamq_s3sns.requests._lazy_clients import LazyClients

from ._wake_up_queue import ALIVE_TAG, MISSING_QUEUE, QUEUE_PREFIX, SUBSCRIPTION_TAG

_logger = logging.getLogger("streamq.s3sns")

ORPHAN_SECONDS = 1_800.0
"""A queue is removed if its owner has not tagged it as alive for so long."""

_GONE = MISSING_QUEUE | {"NotFound", "NotFoundException"}


class OrphanedQueues:
    """The queues and subscriptions that no process uses. Several sweeps may run at a time.

    Args:
        clients: Open the clients of SNS, SQS and STS.
        topic_arn: The topic with the subscriptions.
    """

    def __init__(self, clients: LazyClients, topic_arn: str) -> None:
        self._clients = clients
        self._topic = topic_arn

    async def remove(self) -> int:
        """Remove them; return how many queues and subscriptions without a queue there were.

        Raises:
            StreamqError: Queues cannot be listed or removed.
        """
        with client_errors("wake-up queues"):
            sns = await self._clients.client("sns")
            sqs = await self._clients.client("sqs")
            # In this order: a queue is created before its subscription.
            subscriptions = await self._subscriptions(sns)
            names, removed = set(), 0
            async for url in _queues(sqs):
                name = url.rpartition("/")[2]
                names.add(name)
                tags = await _tags(sqs, url)
                if time.time() - _alive(tags) > ORPHAN_SECONDS:
                    known = tags.get(SUBSCRIPTION_TAG) or subscriptions.get(name)
                    with _missing_is_fine():
                        await sqs.delete_queue(QueueUrl=url)
                    if known:
                        with _missing_is_fine():
                            await sns.unsubscribe(SubscriptionArn=known)
                    removed += 1
            for name in subscriptions.keys() - names:
                with _missing_is_fine():
                    await sns.unsubscribe(SubscriptionArn=subscriptions[name])
                removed += 1
            return removed

    async def _subscriptions(self, sns: Any) -> dict[str, str]:
        """Return the topic's subscriptions of this account's wake-up queues, by queue.

        Return none if they may not be listed: then subscriptions without a queue stay.
        """
        found: dict[str, str] = {}
        try:
            with client_errors(f"subscriptions of topic {self._topic}"):
                # Only queues of this account and region are listed, so only these count.
                sts = await self._clients.client("sts")
                account = (await sts.get_caller_identity())["Account"]
                ours = f":sqs:{self._clients.region}:{account}:{QUEUE_PREFIX}"
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
            _logger.info("subscriptions without a queue are not removed: %s", exc)
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
    with _missing_is_fine():
        return dict((await sqs.list_queue_tags(QueueUrl=url)).get("Tags") or {})
    return {}


def _alive(tags: dict[str, str]) -> float:
    """Return when a queue's owner was last known to be alive; now, if no tag states a time."""
    text = tags.get(ALIVE_TAG, "")
    return float(text) if text.isascii() and text.isdigit() else time.time()


@contextlib.contextmanager
def _missing_is_fine() -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        if error_code(exc) not in _GONE:
            raise
