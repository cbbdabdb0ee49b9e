"""Creates, keeps alive and removes this process's SQS queue, which is subscribed to the topic.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from streamq.driver import StreamqError
from streamq_aws import error_code
from streamq_s3sns._errors import client_errors
from streamq_s3sns.requests._lazy_clients import POLL_SECONDS, LazyClients

QUEUE_PREFIX = "streamq-wakeup-"
ALIVE_TAG = "streamq-alive"
SUBSCRIPTION_TAG = "streamq-subscription"

MISSING_QUEUE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
"""Codes of SQS for a queue that does not exist."""

_RETENTION_SECONDS = 60
_HIDDEN_SECONDS = 120
_BATCH = 10
_SCOPE = "prefix"


class WakeUpQueue:
    """Receives what is published to a topic after it has been opened.

    Every step can be repeated, since it may fail with its answer lost. Not for use by several tasks
    at a time.

    Messages are never deleted, which saves every second request: they stay hidden for longer than
    they are kept.

    Args:
        clients: Open the clients of SNS and SQS.
        topic_arn: The topic.
        scope: Only what was published with the same scope is received.
        kms_key_id: Key of KMS for the queue; ``None`` for the default of SQS.
    """

    def __init__(
        self, clients: LazyClients, topic_arn: str, scope: str, kms_key_id: str | None = None
    ) -> None:
        self._encryption = {"KmsMasterKeyId": kms_key_id} if kms_key_id else {}
        self._clients = clients
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
            StreamqError: A step failed; the next call continues with it, or creates another queue
                if this one does not exist any more.
        """
        if self._subscription:
            return
        self._sns = await self._clients.client("sns")
        self._sqs = await self._clients.client("sqs")
        with self._requests(f"wake-up queue for {self._topic}"):
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
        """Return what has been published; wait a few seconds for it.

        Raises:
            StreamqError: The request failed. If the queue does not exist any more, the next
                :meth:`open` creates a new one.
        """
        with self._requests("wake-up queue"):
            answer = await self._sqs.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=_BATCH, WaitTimeSeconds=POLL_SECONDS
            )
        return [message["Body"] for message in answer.get("Messages", ())]

    async def keep_alive(self) -> None:
        """Keep sweeps away for a while, and subscribe again if the subscription was removed."""
        with self._requests("wake-up queue"):
            await self._subscribe()
            await self._tag()

    async def remove(self) -> None:
        """Remove queue and subscription, also those whose creation was not answered.

        Raises:
            StreamqError: A request failed; a sweep will remove the rest.
        """
        with client_errors("wake-up queue"):
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

    @contextlib.contextmanager
    def _requests(self, about: str) -> Iterator[None]:
        """Translate errors; forget a queue that does not exist any more."""
        try:
            with client_errors(about):
                yield
        except StreamqError as exc:
            if error_code(exc.__cause__ or exc) in MISSING_QUEUE:
                self._forget()
            raise

    async def _create(self) -> None:
        # Repeated with the same name it returns the same queue.
        self._name = self._name or f"{QUEUE_PREFIX}{uuid.uuid4().hex}"
        answer = await self._sqs.create_queue(
            QueueName=self._name,
            Attributes={
                "MessageRetentionPeriod": str(_RETENTION_SECONDS),
                "VisibilityTimeout": str(_HIDDEN_SECONDS),
                **self._encryption,
            },
            tags={ALIVE_TAG: _now()},
        )
        self._url = answer["QueueUrl"]

    async def _subscribe(self) -> None:
        # Repeated it returns the ARN of the same subscription.
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
    """Return the attribute of a message that lets queues of a scope receive it."""
    return {_SCOPE: {"DataType": "String", "StringValue": scope}}


def unexpected(failure: Exception | str) -> Exception | None:
    """Return a failure whose traceback belongs in the log: one that is not streamq's."""
    return None if isinstance(failure, StreamqError | str) else failure


def _now() -> str:
    return str(int(time.time()))
