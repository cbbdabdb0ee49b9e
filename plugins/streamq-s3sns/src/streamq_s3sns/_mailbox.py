"""A queue of SQS of our own, subscribed to the topic: made, kept alive, and removed."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from streamq.driver import StreamqError
from streamq_aws import aws_errors, error_code

from ._segment import BACKEND
from ._services import POLL_SECONDS, Services

QUEUE_PREFIX = "streamq-wakeup-"
ALIVE_TAG = "streamq-alive"
SUBSCRIPTION_TAG = "streamq-subscription"

MISSING_QUEUE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
"""What SQS calls it if a queue is not there."""

_RETENTION_SECONDS = 60
_HIDDEN_SECONDS = 120
_BATCH = 10
_SCOPE = "prefix"


class Mailbox:
    """Hears what is published to a topic, from when it has been opened.

    It is made of steps that can be repeated, since each of them may fail with its answer lost. Not
    for use by several tasks at a time.

    Messages are never deleted, which saves a request in two: they are hidden for longer than they
    are kept.

    Args:
        services: Where SNS and SQS are.
        topic_arn: The topic.
        scope: Only what was published with the same scope is heard.
    """

    def __init__(self, services: Services, topic_arn: str, scope: str) -> None:
        self._services = services
        self._topic = topic_arn
        self._scope = scope
        self._sns: Any = None
        self._sqs: Any = None
        self._forget()

    def _forget(self) -> None:
        self._name = ""
        self._url = ""
        self._arn = ""
        self._subscription = ""

    async def open(self) -> None:
        """Create the queue and subscribe it, as far as that has not been done.

        Raises:
            StreamqError: It did not work; the next call goes on where this one stopped.
        """
        if self._subscription:
            return
        self._sns = await self._services.client("sns")
        self._sqs = await self._services.client("sqs")
        with aws_errors(BACKEND, about=f"wake-up queue for {self._topic}"):
            if not self._url:
                await self._create()
            if not self._arn:
                found = await self._sqs.get_queue_attributes(
                    QueueUrl=self._url, AttributeNames=["QueueArn"]
                )
                arn = found["Attributes"]["QueueArn"]
                await self._sqs.set_queue_attributes(
                    QueueUrl=self._url, Attributes={"Policy": json.dumps(self._policy(arn))}
                )
                self._arn = arn
            await self._subscribe()
            await self._tag()

    async def receive(self) -> list[str]:
        """Return what has been published, waiting for it a little.

        Raises:
            StreamqError: It did not work. If the queue has gone, the next ``open`` makes a new one.
        """
        try:
            with aws_errors(BACKEND, about="wake-up queue"):
                answer = await self._sqs.receive_message(
                    QueueUrl=self._url, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=POLL_SECONDS
                )
        except StreamqError as exc:
            if error_code(exc.__cause__ or exc) in MISSING_QUEUE:
                self._forget()
            raise
        return [message["Body"] for message in answer.get("Messages", ())]

    async def say_alive(self) -> None:
        """Keep sweeps away for a while, and subscribe again if somebody has undone that."""
        with aws_errors(BACKEND, about="wake-up queue"):
            await self._subscribe()
            await self._tag()

    async def remove(self) -> None:
        """Remove queue and subscription, also one of which no answer has told.

        Raises:
            StreamqError: It did not work, and is left to a sweep.
        """
        with aws_errors(BACKEND, about="wake-up queue"):
            try:
                if self._arn:
                    if not self._subscription:
                        await self._subscribe()
                    await self._sns.unsubscribe(SubscriptionArn=self._subscription)
            finally:
                if self._name:
                    if not self._url:
                        await self._create()
                    await self._sqs.delete_queue(QueueUrl=self._url)
                self._forget()

    async def _create(self) -> None:
        # Twice with the same name it is the same queue.
        self._name = self._name or f"{QUEUE_PREFIX}{uuid.uuid4().hex}"
        answer = await self._sqs.create_queue(
            QueueName=self._name,
            Attributes={
                "MessageRetentionPeriod": str(_RETENTION_SECONDS),
                "VisibilityTimeout": str(_HIDDEN_SECONDS),
            },
            tags={ALIVE_TAG: _now()},
        )
        self._url = answer["QueueUrl"]

    async def _subscribe(self) -> None:
        # Twice it is the same subscription, whose name the answer tells.
        answer = await self._sns.subscribe(
            TopicArn=self._topic,
            Protocol="sqs",
            Endpoint=self._arn,
            ReturnSubscriptionArn=True,
            Attributes={
                "RawMessageDelivery": "true",
                "FilterPolicy": json.dumps({_SCOPE: [self._scope]}),
            },
        )
        self._subscription = answer["SubscriptionArn"]

    async def _tag(self) -> None:
        tags = {ALIVE_TAG: _now(), SUBSCRIPTION_TAG: self._subscription}
        await self._sqs.tag_queue(QueueUrl=self._url, Tags=tags)

    def _policy(self, arn: str) -> dict[str, Any]:
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": arn,
                    "Condition": {"ArnEquals": {"aws:SourceArn": self._topic}},
                }
            ],
        }


def scope_attribute(scope: str) -> dict[str, Any]:
    """Return the attribute of a message by which mailboxes of a scope hear it."""
    return {_SCOPE: {"DataType": "String", "StringValue": scope}}


def _now() -> str:
    return str(int(time.time()))
