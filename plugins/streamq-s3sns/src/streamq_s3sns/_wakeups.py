"""Notifications that wake readers: an SNS topic, and a queue of SQS for each process that waits.

They are a hint and nothing else. One that is lost, late, repeated, out of order or made up causes a
look at S3 more or less; what is read, is read there.

The queue is created when the first reader of the process waits, and removed when the streamq queue
is closed. Messages are never deleted from it, which saves a request in two: they are hidden for
longer than they are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from streamq.driver import StreamqError
from streamq_aws import AwsClients, aws_errors, error_code

from ._segment import BACKEND

_logger = logging.getLogger("streamq.s3sns")

QUEUE_PREFIX = "streamq-wakeup-"
ALIVE_TAG = "streamq-alive"
SUBSCRIPTION_TAG = "streamq-subscription"
ORPHAN_SECONDS = 1_800.0
"""A queue whose owner has not said for so long that it lives is removed by a sweep."""

POLL_SECONDS = 5
_ALIVE_SECONDS = 600.0
_RETENTION_SECONDS = 60
_HIDDEN_SECONDS = 120
_BATCH = 10
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
_SCOPE = "prefix"

Wake = Callable[[str, int], None]


class WakeUps:
    """The notifications of one queue: publishes its own, and hears everybody's.

    Args:
        clients: Makes clients of SNS and SQS.
        topic_arn: The topic.
        scope: Only notifications of the same scope are heard: bucket and prefix.
        wake: Called with the directory of a stream and the number of its new segment.
    """

    def __init__(self, clients: AwsClients, topic_arn: str, scope: str, wake: Wake) -> None:
        self._clients = clients
        self._topic = topic_arn
        self._scope = scope
        self._wake = wake
        self._sns: Any = None
        self._sqs: Any = None
        self._pending: dict[str, int] = {}
        self._publisher: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._queue_url = ""
        self._subscription = ""
        self._failed_until = 0.0
        self._clock = asyncio.get_running_loop().time
        self.is_listening = False
        """Whether notifications are being heard now."""

    def publish(self, directory: str, number: int) -> None:
        """Tell everybody of a new segment, soon. Never fails, never waits."""
        self._pending[directory] = number
        if self._publisher is None and self._clock() >= self._failed_until:
            self._publisher = asyncio.create_task(self._publish(), name="streamq-s3sns-publisher")

    def listen(self) -> None:
        """Begin to hear notifications, soon. Never fails, never waits."""
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen(), name="streamq-s3sns-listener")

    async def aclose(self, patience_seconds: float) -> None:
        """Send what is pending and remove our queue, as far as that takes no longer than this."""
        listener, publisher = self._listener, self._publisher
        if listener is not None:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        if publisher is not None:
            await asyncio.wait({publisher}, timeout=patience_seconds)
            publisher.cancel()
            await asyncio.gather(publisher, return_exceptions=True)
        with contextlib.suppress(StreamqError, TimeoutError):
            async with asyncio.timeout(patience_seconds):
                await self._remove(self._queue_url, self._subscription)
        self._queue_url = self._subscription = ""

    async def sweep(self) -> int:
        """Remove the queues of processes that ended without doing it; return how many."""
        sqs = await self._sqs_client()
        now, removed = time.time(), 0
        with aws_errors(BACKEND, about="wake-up queues"):
            token: dict[str, str] = {}
            while True:
                answer = await sqs.list_queues(
                    QueueNamePrefix=QUEUE_PREFIX, MaxResults=1_000, **token
                )
                for url in answer.get("QueueUrls", ()):
                    tags = await self._tags(url)
                    alive = float(tags.get(ALIVE_TAG) or now)
                    if now - alive > ORPHAN_SECONDS:
                        await self._remove(url, tags.get(SUBSCRIPTION_TAG, ""))
                        removed += 1
                if not answer.get("NextToken"):
                    return removed
                token = {"NextToken": answer["NextToken"]}

    # -- publishing ----------------------------------------------------------------------------

    async def _publish(self) -> None:
        try:
            while self._pending:
                some = [self._pending.popitem() for _ in range(min(_BATCH, len(self._pending)))]
                sns = await self._sns_client()
                with aws_errors(BACKEND, about=f"topic {self._topic}"):
                    await sns.publish_batch(
                        TopicArn=self._topic,
                        PublishBatchRequestEntries=[
                            self._entry(i, directory, number)
                            for i, (directory, number) in enumerate(some)
                        ],
                    )
        except StreamqError as exc:
            self._pending.clear()
            self._failed_until = self._clock() + _FIRST_PAUSE
            _logger.warning("readers are not woken and have to poll: %s", exc)
        finally:
            self._publisher = None

    def _entry(self, i: int, directory: str, number: int) -> dict[str, Any]:
        return {
            "Id": str(i),
            "Message": f"{number} {directory}",
            "MessageAttributes": {_SCOPE: {"DataType": "String", "StringValue": self._scope}},
        }

    # -- hearing -------------------------------------------------------------------------------

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await self._create()
                self.is_listening = True
                pause = _FIRST_PAUSE
                await self._receive()
            except StreamqError as exc:
                log = _logger.warning if pause == _FIRST_PAUSE else _logger.debug
                log("no notifications for now, readers poll: %s", exc)
            finally:
                self.is_listening = False
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _create(self) -> None:
        """Create our queue and subscribe it, unless that has been done."""
        if self._subscription:
            return
        sqs, sns = await self._sqs_client(), await self._sns_client()
        with aws_errors(BACKEND, about=f"wake-up queue for {self._topic}"):
            if not self._queue_url:
                # Asked for with a name of its own: if the answer is lost, a sweep finds it.
                answer = await sqs.create_queue(
                    QueueName=f"{QUEUE_PREFIX}{uuid.uuid4().hex}",
                    Attributes={
                        "MessageRetentionPeriod": str(_RETENTION_SECONDS),
                        "VisibilityTimeout": str(_HIDDEN_SECONDS),
                    },
                    tags={ALIVE_TAG: _now()},
                )
                self._queue_url = answer["QueueUrl"]
            url = self._queue_url
            found = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
            queue_arn = found["Attributes"]["QueueArn"]
            policy = json.dumps(self._policy(queue_arn))
            await sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
            answer = await sns.subscribe(
                TopicArn=self._topic,
                Protocol="sqs",
                Endpoint=queue_arn,
                ReturnSubscriptionArn=True,
                Attributes={
                    "RawMessageDelivery": "true",
                    "FilterPolicy": json.dumps({_SCOPE: [self._scope]}),
                },
            )
            self._subscription = answer["SubscriptionArn"]
            await self._say_alive()

    def _policy(self, queue_arn: str) -> dict[str, Any]:
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "sns.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": queue_arn,
                    "Condition": {"ArnEquals": {"aws:SourceArn": self._topic}},
                }
            ],
        }

    async def _receive(self) -> None:
        alive_until = self._clock() + _ALIVE_SECONDS
        while True:
            try:
                with aws_errors(BACKEND, about="wake-up queue"):
                    answer = await self._sqs.receive_message(
                        QueueUrl=self._queue_url,
                        MaxNumberOfMessages=_BATCH,
                        WaitTimeSeconds=POLL_SECONDS,
                    )
                    if self._clock() >= alive_until:
                        await self._say_alive()
                        alive_until = self._clock() + _ALIVE_SECONDS
            except StreamqError as exc:
                if error_code(exc.__cause__ or exc) in _MISSING:
                    self._queue_url = self._subscription = ""
                raise
            for message in answer.get("Messages", ()):
                number, _, directory = message["Body"].partition(" ")
                if number.isascii() and number.isdigit() and len(number) <= 12:
                    self._wake(directory, int(number))

    async def _say_alive(self) -> None:
        tags = {ALIVE_TAG: _now(), SUBSCRIPTION_TAG: self._subscription}
        await self._sqs.tag_queue(QueueUrl=self._queue_url, Tags=tags)

    async def _remove(self, queue_url: str, subscription: str) -> None:
        with aws_errors(BACKEND, about="wake-up queue"):
            try:
                if subscription:
                    await (await self._sns_client()).unsubscribe(SubscriptionArn=subscription)
            finally:
                if queue_url:
                    await (await self._sqs_client()).delete_queue(QueueUrl=queue_url)

    async def _tags(self, url: str) -> dict[str, str]:
        try:
            return dict((await self._sqs.list_queue_tags(QueueUrl=url)).get("Tags") or {})
        except Exception as exc:
            if error_code(exc) in _MISSING:
                return {}
            raise

    async def _sns_client(self) -> Any:
        self._sns = self._sns or await self._clients.client("sns")
        return self._sns

    async def _sqs_client(self) -> Any:
        self._sqs = self._sqs or await self._clients.client("sqs", poll_seconds=POLL_SECONDS)
        return self._sqs


def _now() -> str:
    return str(int(time.time()))
