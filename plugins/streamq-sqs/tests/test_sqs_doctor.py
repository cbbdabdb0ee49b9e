"""The doctor finds what settings and operators do to queues."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from streamq.driver import Entry, Finding, QueueOptions, StreamId
from streamq_sqs import SqsDriver, SqsSettings

OPTIONS = QueueOptions(ttl=timedelta(days=1))


@pytest.fixture
def settings() -> SqsSettings:
    """Return settings for queues of this test only."""
    return SqsSettings(max_message_bytes=262_144, queue_prefix=f"d{uuid.uuid4().hex[:8]}-")


def wrong(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings that are errors or warnings; both have a remedy."""
    found = [each for each in findings if not each.ok or each.is_warning]
    assert all(bool(each.remedy) == (each in found) for each in findings)
    return found


@pytest.mark.parametrize(
    ("changed", "ok", "words"),
    [
        ({"MessageRetentionPeriod": "3600"}, False, "after 3600 s"),
        ({"RedrivePolicy": {"maxReceiveCount": 5}}, False, "after 5 receives"),
        ({"DelaySeconds": "7"}, True, "by 7 s"),
        (
            {
                "Policy": {
                    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sqs:*"}]
                }
            },
            False,
            "public",
        ),
    ],
)
async def test_changes_of_an_operator_are_found(
    stream: StreamId,
    settings: SqsSettings,
    plain: Any,
    changed: dict[str, Any],
    ok: bool,
    words: str,
) -> None:
    """The queue belongs to the account, and everybody there may change it."""
    assert wrong(await SqsDriver.examine(OPTIONS, settings)) == []
    async with await SqsDriver.open(OPTIONS, settings) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
        assert wrong(await SqsDriver.examine(OPTIONS, settings)) == []
        (url,) = plain.list_queues(QueueNamePrefix=settings.queue_prefix)["QueueUrls"]
        if "RedrivePolicy" in changed:
            dead = plain.create_queue(QueueName="dead.fifo", Attributes={"FifoQueue": "true"})
            arn = plain.get_queue_attributes(QueueUrl=dead["QueueUrl"], AttributeNames=["QueueArn"])
            changed["RedrivePolicy"]["deadLetterTargetArn"] = arn["Attributes"]["QueueArn"]
        attributes = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in changed.items()
        }
        plain.set_queue_attributes(QueueUrl=url, Attributes=attributes)
        (found,) = wrong(await SqsDriver.examine(OPTIONS, settings))
        assert words in found.detail
        assert (found.ok, found.is_warning) == (ok, ok)


async def test_settings_that_lose_messages_are_found(
    stream: StreamId, settings: SqsSettings
) -> None:
    """SQS keeps nothing for longer than 14 days, and finds a queue by its whole name."""
    (found,) = wrong(await SqsDriver.examine(QueueOptions(ttl=timedelta(days=15)), settings))
    assert (found.subject, found.ok) == ("time to live", False)
    short = settings.model_copy(update={"hold_seconds": 5, "visibility_seconds": 30})
    (found,) = wrong(await SqsDriver.examine(OPTIONS, short))
    assert (found.subject, found.is_warning) == ("visibility", True)
    async with await SqsDriver.open(OPTIONS, settings) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
    other = settings.model_copy(update={"fifo": False})
    (found,) = wrong(await SqsDriver.examine(OPTIONS, other))
    assert "STREAMQ_SQS_FIFO" in found.detail


@pytest.mark.parametrize(
    ("setting", "attribute", "value"),
    [
        ({"kms_key_id": "alias/ours"}, "KmsMasterKeyId", "alias/ours"),
        ({"managed_encryption": True}, "SqsManagedSseEnabled", "true"),
        ({"managed_encryption": False}, "SqsManagedSseEnabled", "false"),
    ],
)
async def test_queues_are_created_with_the_encryption_that_is_set(
    stream: StreamId,
    settings: SqsSettings,
    plain: Any,
    setting: dict[str, Any],
    attribute: str,
    value: str,
) -> None:
    """Policies of accounts demand it."""
    encrypting = SqsSettings(**(settings.model_dump() | setting))
    async with await SqsDriver.open(OPTIONS, encrypting) as queue:
        await queue.append(stream, [Entry(1, 0, b"a")])
    (url,) = plain.list_queues(QueueNamePrefix=settings.queue_prefix)["QueueUrls"]
    found = plain.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    assert found[attribute] == value


def test_two_kinds_of_encryption_exclude_each_other() -> None:
    """SQS would refuse the creation of each queue."""
    with pytest.raises(ValueError, match="unset one"):
        SqsSettings(kms_key_id="alias/ours", managed_encryption=True)
