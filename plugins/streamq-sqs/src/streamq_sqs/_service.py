"""The requests to SQS: one method for each, nothing remembered, nothing retried."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamq.driver import (
    BackendError,
    BackendUnavailableError,
    Entry,
    StreamId,
    StreamNotFoundError,
)
from streamq_aws import AwsClients, aws_errors, error_code

from ._errors import BACKEND
from ._messages import ATTRIBUTE, record_of, to_message
from ._names import Label
from ._receiver import MOST_AT_ONCE, Taken
from ._settings import SqsSettings

_LONGEST_POLL_SECONDS = 20
_LONGEST_RETENTION = 1_209_600  # 14 days; sweeping is what ends a stream
_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
_EXISTS = frozenset({"QueueAlreadyExists", "QueueNameExists"})
_STALE_ID = frozenset({"InvalidParameterValue", "InvalidParameterValueException"})
_COUNTS = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


@dataclass(frozen=True, slots=True)
class Received:
    """What a request has brought.

    Attributes:
        taken: Records.
        foreign: Receipts of messages that somebody else has put into the queue.
    """

    taken: list[Taken] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Hidden:
    """Receipts of messages that were to be hidden, by what came of it; the rest may be tried again.

    Attributes:
        done: They are.
        useless: Those that are worth nothing any more.
    """

    done: list[str] = field(default_factory=list)
    useless: list[str] = field(default_factory=list)


class Service:
    """What SQS is asked. Every method raises streamq's errors only.

    Long polls hold a connection for as long as they wait, and must not keep others from theirs:
    each kind has a number of its own.

    Args:
        settings: The driver's settings.
    """

    def __init__(self, settings: SqsSettings) -> None:
        self._settings = settings
        connections = settings.max_connections + settings.max_polls
        self._clients = AwsClients(
            settings.model_copy(update={"max_connections": connections}), backend=BACKEND
        )
        # A call that waits for its turn is not one that the service leaves without an answer.
        self._turns = asyncio.Semaphore(settings.max_connections)
        self._poll_turns = asyncio.Semaphore(settings.max_polls)
        self._sqs: Any = None

    async def start(self, prefix: str) -> None:
        """Open the client, and see that SQS answers."""
        self._sqs = await self._clients.client("sqs", poll_seconds=_LONGEST_POLL_SECONDS)
        await self._call("list_queues", QueueNamePrefix=prefix, MaxResults=1)

    async def aclose(self) -> None:
        """Close the client."""
        await self._clients.aclose()

    # -- queues --------------------------------------------------------------------------------

    async def url(self, name: str) -> str | None:
        """Return where a queue is; ``None`` if there is none."""
        try:
            return str((await self._call("get_queue_url", QueueName=name))["QueueUrl"])
        except StreamNotFoundError:
            return None

    async def create(self, name: str, tags: Mapping[str, str]) -> str:
        """Make a queue with these tags, or find the one that is there, with whatever tags."""
        attributes = {
            "MessageRetentionPeriod": str(_LONGEST_RETENTION),
            "VisibilityTimeout": str(self._settings.visibility_seconds),
        }
        if self._settings.fifo:
            attributes["FifoQueue"] = "true"
        try:
            made = await self._call(
                "create_queue", QueueName=name, Attributes=attributes, tags=dict(tags)
            )
        except BackendError as exc:
            # Somebody with other settings has made it, or an operator has changed it.
            if exc.__cause__ is None or error_code(exc.__cause__) not in _EXISTS:
                raise
            made = await self._call("get_queue_url", QueueName=name)
        return str(made["QueueUrl"])

    async def delete(self, url: str) -> None:
        """Delete a queue, if it is there."""
        try:
            await self._call("delete_queue", QueueUrl=url)
        except StreamNotFoundError:
            return

    async def label(self, url: str) -> Label:
        """Return what the tags of a queue say."""
        answer = await self._call("list_queue_tags", QueueUrl=url)
        return Label.read(answer.get("Tags") or {})

    async def label_if_there(self, url: str) -> Label | None:
        """Return what the tags of a queue say, unless it is gone by now."""
        try:
            return await self.label(url)
        except StreamNotFoundError:
            return None

    async def tag(self, url: str, tags: Mapping[str, str]) -> None:
        """Put tags on a queue."""
        await self._call("tag_queue", QueueUrl=url, Tags=dict(tags))

    async def untag(self, url: str, keys: Sequence[str]) -> None:
        """Take tags away from a queue."""
        await self._call("untag_queue", QueueUrl=url, TagKeys=list(keys))

    async def count(self, url: str) -> int:
        """Return about how many messages there are, taken ones included."""
        answer = await self._call(
            "get_queue_attributes", QueueUrl=url, AttributeNames=list(_COUNTS)
        )
        return sum(int(answer["Attributes"].get(name, 0)) for name in _COUNTS)

    async def pages(self, prefix: str) -> AsyncIterator[list[str]]:
        """Iterate over the pages of the list of all queues whose names begin so."""
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

        On FIFO queues that is one entry: of more, SQS might take a later one and not an earlier.

        Raises:
            BackendUnavailableError: Some of it was not taken.
        """
        fifo = self._settings.fifo
        messages = [to_message(str(i), each, fifo=fifo) for i, each in enumerate(entries)]
        answer = await self._call("send_message_batch", QueueUrl=url, Entries=messages)
        _check_all_done(answer, "take", len(entries), stream, tolerate_sender_faults=False)

    async def receive(self, url: str, request_id: str, wait: float) -> Received:
        """Take messages, waiting for the first one.

        Args:
            url: Of which queue.
            request_id: Repeating a request with the same id gives the same messages again, on FIFO
                queues, while nothing has happened to them.
            wait: For how long at least.
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
            params["ReceiveRequestAttemptId"] = request_id
        try:
            answer = await self._poll(seconds, params)
        except BackendError as exc:
            cause = exc.__cause__
            if "ReceiveRequestAttemptId" not in params or cause is None:
                raise
            if error_code(cause) not in _STALE_ID:
                raise
            # What that request brought has been deleted or given back since.
            del params["ReceiveRequestAttemptId"]
            answer = await self._poll(seconds, params)
        # The time-out runs from when SQS gave them out, which a long poll may have waited for.
        now = asyncio.get_running_loop().time()
        found = Received()
        for each in answer.get("Messages", ()):
            receipt, data = each["ReceiptHandle"], record_of(each)
            if data is None:
                found.foreign.append(receipt)
            else:
                held_until = now + self._settings.hold_seconds
                found.taken.append(Taken(receipt, data, now + hidden, held_until))
        return found

    async def remove(self, stream: StreamId, url: str, receipts: Sequence[str]) -> None:
        """Delete messages by receipts.

        A receipt that is too old, or used up, is no error: its message has gone, or comes again to
        be told as a repeat.
        """
        for at in range(0, len(receipts), MOST_AT_ONCE):
            part = receipts[at : at + MOST_AT_ONCE]
            answer = await self._call(
                "delete_message_batch",
                QueueUrl=url,
                Entries=[{"Id": str(i), "ReceiptHandle": each} for i, each in enumerate(part)],
            )
            _check_all_done(answer, "delete", len(part), stream, tolerate_sender_faults=True)

    async def hide(self, url: str, receipts: Sequence[str], seconds: int) -> Hidden:
        """Set for how long messages stay hidden from now; 0 gives them back."""
        found = Hidden()
        for at in range(0, len(receipts), MOST_AT_ONCE):
            part = receipts[at : at + MOST_AT_ONCE]
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
            # The rest is not our fault: SQS has not done it this time.
            found.useless.extend(
                part[int(each["Id"])] for each in failed if each.get("SenderFault")
            )
        return found

    async def _call(self, operation: str, **params: Any) -> Any:
        async with self._turns:
            return await self._ask(getattr(self._sqs, operation)(**params), 0.0, _about(params))

    async def _poll(self, wait: float, params: Mapping[str, Any]) -> Any:
        async with self._poll_turns:
            return await self._ask(self._sqs.receive_message(**params), wait, _about(params))

    async def _ask(self, call: Awaitable[Any], wait: float, about: str) -> Any:
        try:
            with aws_errors(BACKEND, about=about):
                async with asyncio.timeout(self._settings.operation_timeout_seconds + wait):
                    return await call
        except BackendError as exc:
            cause = exc.__cause__
            if cause is not None and error_code(cause) in _MISSING:
                raise StreamNotFoundError(f"there is no {about} in SQS", backend=BACKEND) from cause
            raise


def _about(params: Mapping[str, Any]) -> str:
    """Say what a request is about, as operators know it from the console and their policies."""
    if prefix := params.get("QueueNamePrefix"):
        return f"queues {prefix}*"
    name = params.get("QueueName") or params.get("QueueUrl", "").rpartition("/")[2]
    return f"queue {name}"


def _check_all_done(
    answer: Mapping[str, Any],
    verb: str,
    count: int,
    stream: StreamId,
    *,
    tolerate_sender_faults: bool,
) -> None:
    failed = answer.get("Failed") or ()
    if tolerate_sender_faults:
        failed = [each for each in failed if not each.get("SenderFault")]
    if not failed:
        return
    first = failed[0]
    kind = BackendError if first.get("SenderFault") else BackendUnavailableError
    raise kind(
        f"SQS did not {verb} {len(failed)} of {count} messages: {first.get('Code')}, "
        f"{first.get('Message', 'no message')}",
        backend=BACKEND,
        stream=str(stream),
    )
