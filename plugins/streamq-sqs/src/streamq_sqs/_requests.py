"""Sends requests to SQS: one method each; nothing is remembered, nothing is retried.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamq import load_settings
from streamq.driver import (
    AccessDeniedError,
    BackendError,
    Entry,
    StreamId,
    StreamNotFoundError,
)
from streamq_aws import AwsClients, aws_errors

from ._errors import BACKEND, check_batch, is_existing_queue, is_missing_queue, is_stale_attempt_id
from ._messages import ATTRIBUTE, MOST_AT_ONCE, HeldMessage, record_of, to_message
from ._naming import QueueNames
from ._settings import SqsSettings
from ._tags import QueueTags

_LONGEST_POLL_SECONDS = 20
LONGEST_RETENTION = 1_209_600  # 14 days; a sweep ends a stream before that
_NAME_TO_LOOK_UP = "streamq-doctor"
_ATTEMPT_ID = "ReceiveRequestAttemptId"
_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(frozen=True, slots=True)
class Received:
    """Messages that one receive request has returned.

    Attributes:
        messages: Those with records of streamq.
        foreign: Receipts of the others: something else has sent them to this queue.
    """

    messages: list[HeldMessage] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Hidden:
    """Receipts of messages that were to be hidden, by result; the rest may be tried again.

    Attributes:
        done: SQS hides these messages.
        useless: SQS no longer accepts these receipts.
    """

    done: list[str] = field(default_factory=list)
    useless: list[str] = field(default_factory=list)


class SqsRequests:
    """The requests to SQS. Every method raises streamq's errors only.

    Long polls hold a connection while they wait and must not take those of other requests. So each
    kind has its own limit.

    Args:
        settings: The driver's settings.
    """

    def __init__(self, settings: SqsSettings) -> None:
        self._settings = settings
        connections = settings.max_connections + settings.max_polls
        self._clients = AwsClients(
            settings.model_copy(update={"max_connections": connections}), backend=BACKEND
        )
        # The time that a call waits for its turn does not count as time without an answer.
        self._turns = asyncio.Semaphore(settings.max_connections)
        self._poll_turns = asyncio.Semaphore(settings.max_polls)
        self._sqs: Any = None
        self.may_list = True
        """Whether we may list all queues, as far as is known."""

    async def start(self, names: QueueNames) -> None:
        """Open the client, and check that SQS answers us.

        The rights of one tenant do not include listing, which IAM cannot limit to some queues. Then
        a queue of the configured tenant is looked up instead.
        """
        self._sqs = await self._clients.client("sqs", poll_seconds=_LONGEST_POLL_SECONDS)
        try:
            await self.some(names.prefix, 1)
        except AccessDeniedError as refused:
            try:
                await self.url(names.queue(StreamId(load_settings().tenant, _NAME_TO_LOOK_UP)))
            except AccessDeniedError:
                raise refused from refused.__cause__
            self.may_list = False

    async def aclose(self) -> None:
        """Close the client."""
        await self._clients.aclose()

    # -- queues --------------------------------------------------------------------------------

    async def url(self, name: str) -> str | None:
        """Return the URL of a queue; ``None`` if there is none."""
        try:
            return str((await self._call("get_queue_url", QueueName=name))["QueueUrl"])
        except StreamNotFoundError:
            return None

    async def create(self, name: str, tags: Mapping[str, str]) -> str:
        """Create a queue with these tags, or find an existing one, whatever its tags are."""
        attributes = {
            "MessageRetentionPeriod": str(LONGEST_RETENTION),
            "VisibilityTimeout": str(self._settings.visibility_seconds),
            **self._settings.encryption_attributes,
        }
        if self._settings.fifo:
            attributes["FifoQueue"] = "true"
        try:
            made = await self._call(
                "create_queue", QueueName=name, Attributes=attributes, tags=dict(tags)
            )
        except BackendError as exc:
            # A process with other settings has created it, or an operator has changed it.
            if not is_existing_queue(exc):
                raise
            made = await self._call("get_queue_url", QueueName=name)
        return str(made["QueueUrl"])

    async def delete(self, url: str) -> None:
        """Delete a queue, if it exists."""
        try:
            await self._call("delete_queue", QueueUrl=url)
        except StreamNotFoundError:
            return

    async def tags(self, url: str) -> QueueTags:
        """Return the tags of a queue."""
        answer = await self._call("list_queue_tags", QueueUrl=url)
        return QueueTags.read(answer.get("Tags") or {})

    async def tags_if_there(self, url: str) -> QueueTags | None:
        """Return the tags of a queue; ``None`` if the queue no longer exists."""
        try:
            return await self.tags(url)
        except StreamNotFoundError:
            return None

    async def tag(self, url: str, tags: Mapping[str, str]) -> None:
        """Add tags to a queue."""
        await self._call("tag_queue", QueueUrl=url, Tags=dict(tags))

    async def untag(self, url: str, keys: Sequence[str]) -> None:
        """Remove tags from a queue."""
        await self._call("untag_queue", QueueUrl=url, TagKeys=list(keys))

    async def count(self, url: str) -> int:
        """Return the approximate number of messages, those included that readers hold."""
        answer = await self._call(
            "get_queue_attributes", QueueUrl=url, AttributeNames=list(_COUNTS)
        )
        return sum(int(answer["Attributes"].get(name, 0)) for name in _COUNTS)

    async def attributes(self, url: str) -> Mapping[str, str]:
        """Return all attributes of a queue."""
        answer = await self._call("get_queue_attributes", QueueUrl=url, AttributeNames=["All"])
        return dict(answer.get("Attributes") or {})

    async def some(self, prefix: str, count: int) -> Any:
        """Return the answer of SQS with the URLs of some queues whose names begin with a prefix."""
        return await self._call("list_queues", QueueNamePrefix=prefix, MaxResults=count)

    async def pages(self, prefix: str) -> AsyncIterator[list[str]]:
        """Iterate over pages of URLs of all queues whose names begin with a prefix."""
        token: dict[str, Any] = {}
        while True:
            page = await self._call(
                "list_queues", QueueNamePrefix=prefix, MaxResults=1_000, **token
            )
            yield list(page.get("QueueUrls", ()))
            if not (following := page.get("NextToken")):
                return
            token = {"NextToken": following}

    # -- messages ------------------------------------------------------------------------------

    async def send(self, stream: StreamId, url: str, entries: Sequence[Entry]) -> None:
        """Send a batch.

        A batch for a FIFO queue has one entry: of several, SQS might accept a later one and refuse
        an earlier one.

        Raises:
            BackendUnavailableError: SQS did not accept all of it.
        """
        fifo = self._settings.fifo
        messages = [to_message(str(i), each, fifo=fifo) for i, each in enumerate(entries)]
        answer = await self._call("send_message_batch", QueueUrl=url, Entries=messages)
        check_batch(answer, "take", len(entries), stream, tolerate_sender_faults=False)

    async def receive(self, url: str, request_id: str, wait: float) -> Received:
        """Receive messages; wait for the first one.

        Args:
            url: Of the queue.
            request_id: A FIFO queue returns the same messages for a repeated id while they are
                unchanged.
            wait: How long to wait at least, in seconds.
        """
        seconds = min(math.ceil(wait), _LONGEST_POLL_SECONDS)
        hidden = self._settings.visibility_seconds
        params: dict[str, Any] = {
            "QueueUrl": url,
            "MaxNumberOfMessages": MOST_AT_ONCE,
            "VisibilityTimeout": hidden,
            "WaitTimeSeconds": seconds,
            "MessageAttributeNames": [ATTRIBUTE],
        }
        if self._settings.fifo:
            params[_ATTEMPT_ID] = request_id
        try:
            answer = await self._poll(seconds, params)
        except BackendError as exc:
            if _ATTEMPT_ID not in params or not is_stale_attempt_id(exc):
                raise
            # The messages of that request have been deleted or given back since.
            del params[_ATTEMPT_ID]
            answer = await self._poll(seconds, params)
        # The visibility time-out counts from the answer, which may come long after the request.
        now = asyncio.get_running_loop().time()
        found = Received()
        for each in answer.get("Messages", ()):
            receipt, data = each["ReceiptHandle"], record_of(each)
            if data is None:
                found.foreign.append(receipt)
            else:
                held_until = now + self._settings.hold_seconds
                found.messages.append(HeldMessage(receipt, data, now + hidden, held_until))
        return found

    async def remove(self, stream: StreamId, url: str, receipts: Sequence[str]) -> None:
        """Delete messages by their receipts.

        A receipt that is too old or already used is no error. Its message is gone, or is received
        again and dropped as a repeat.
        """
        for part in _parts(receipts):
            answer = await self._call(
                "delete_message_batch",
                QueueUrl=url,
                Entries=[{"Id": str(i), "ReceiptHandle": each} for i, each in enumerate(part)],
            )
            check_batch(answer, "delete", len(part), stream, tolerate_sender_faults=True)

    async def hide(self, url: str, receipts: Sequence[str], seconds: int) -> Hidden:
        """Set how long messages stay hidden from now on; 0 makes them visible at once."""
        found = Hidden()
        for part in _parts(receipts):
            answer = await self._call(
                "change_message_visibility_batch",
                QueueUrl=url,
                Entries=[
                    {"Id": str(i), "ReceiptHandle": each, "VisibilityTimeout": seconds}
                    for i, each in enumerate(part)
                ],
            )
            found.done.extend(part[int(each["Id"])] for each in answer.get("Successful", ()))
            failed = answer.get("Failed", ())
            # The others may be tried again: SQS itself failed to hide them.
            found.useless.extend(
                part[int(each["Id"])] for each in failed if each.get("SenderFault")
            )
        return found

    # -- inside --------------------------------------------------------------------------------

    async def _call(self, operation: str, **params: Any) -> Any:
        async with self._turns:
            return await self._answer(getattr(self._sqs, operation)(**params), 0.0, _about(params))

    async def _poll(self, wait: float, params: Mapping[str, Any]) -> Any:
        async with self._poll_turns:
            return await self._answer(self._sqs.receive_message(**params), wait, _about(params))

    async def _answer(self, call: Awaitable[Any], wait: float, about: str) -> Any:
        try:
            with aws_errors(BACKEND, about=about):
                async with asyncio.timeout(self._settings.operation_timeout_seconds + wait):
                    return await call
        except BackendError as exc:
            if not is_missing_queue(exc):
                raise
            raise StreamNotFoundError(
                f"there is no {about} in SQS", backend=BACKEND
            ) from exc.__cause__


def _about(params: Mapping[str, Any]) -> str:
    """Return the subject of a request, named as in the AWS console and in policies."""
    if prefix := params.get("QueueNamePrefix"):
        return f"queues {prefix}*"
    name = params.get("QueueName") or params.get("QueueUrl", "").rpartition("/")[2]
    return f"queue {name}"


def _parts(receipts: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(receipts), MOST_AT_ONCE):
        yield receipts[at : at + MOST_AT_ONCE]
