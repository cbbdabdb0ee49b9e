"""Tests what the doctor examines and creates before the first stream."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from streamq.driver import ConfigurationError, Entry, QueueOptions, StreamId
from streamq_s3sns import S3SnsDriver, S3SnsSettings
from streamq_s3sns.doctor._lifecycle_rules import LifecycleRules


async def test_missing_bucket_is_reported_with_the_next_step(settings: S3SnsSettings) -> None:
    """The most common mistake of the first day."""
    options = QueueOptions(ttl=timedelta(days=1))
    for bucket, step in (("", "STREAMQ_S3SNS_BUCKET"), ("nowhere", "doctor --create")):
        with pytest.raises(ConfigurationError, match=step):
            await S3SnsDriver.open(options, settings.model_copy(update={"bucket": bucket}))


async def test_versions_in_a_bucket_prevent_erasure(settings: S3SnsSettings, s3: Any) -> None:
    """Operators that have to delete data must know that the bucket keeps copies."""
    options = QueueOptions(ttl=timedelta(days=1))
    async with await S3SnsDriver.open(options, settings) as queue:
        assert queue.capabilities.erases
    s3.create_bucket(Bucket="versioned")
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    versioned = settings.model_copy(update={"bucket": "versioned"})
    async with await S3SnsDriver.open(options, versioned) as queue:
        assert not queue.capabilities.erases


async def test_doctor_creates_what_is_missing_and_then_finds_nothing(
    settings: S3SnsSettings,
) -> None:
    """Two commands lead from an empty account to a first stream."""
    options = QueueOptions(ttl=timedelta(days=1))
    fresh = settings.model_copy(
        update={"bucket": "fresh", "topic_arn": "arn:aws:sns:us-east-1:000000000000:fresh"}
    )
    assert [finding.ok for finding in await S3SnsDriver.examine(options, fresh)] == [False]
    assert len(await S3SnsDriver.provision(options, fresh)) == 4
    assert all(finding.ok for finding in await S3SnsDriver.examine(options, fresh))
    assert await S3SnsDriver.provision(options, fresh) == []
    longer = QueueOptions(ttl=timedelta(days=30))
    assert not all(finding.ok for finding in await S3SnsDriver.examine(longer, fresh))
    async with await S3SnsDriver.open(options, fresh) as queue:
        await queue.append(StreamId("t", "s"), [Entry(1, 0, b"a")])


async def test_topic_of_another_region_is_refused_before_anything_is_created(
    settings: S3SnsSettings, s3: Any
) -> None:
    """Otherwise every notification fails, or a topic is created in the wrong region."""
    options = QueueOptions(ttl=timedelta(days=1))
    topic = "arn:aws:sns:eu-west-1:000000000000:streams"
    elsewhere = settings.model_copy(update={"bucket": "not-yet", "topic_arn": topic})
    for call in (S3SnsDriver.open, S3SnsDriver.examine, S3SnsDriver.provision):
        with pytest.raises(ConfigurationError, match=r"eu-west-1.*us-east-1"):
            await call(options, elsewhere)
    assert "not-yet" not in {each["Name"] for each in s3.list_buckets()["Buckets"]}


async def test_doctor_has_old_versions_removed_and_keeps_foreign_rules(
    settings: S3SnsSettings, s3: Any
) -> None:
    """In a bucket with versions a rule that only expires objects saves no money."""
    options, bucket = QueueOptions(ttl=timedelta(days=1)), "versions-kept"
    s3.create_bucket(Bucket=bucket)
    rule = {"ID": "logs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}}
    theirs = rule | {"Expiration": {"Days": 2}}
    ours = {
        "ID": f"streamq-{settings.prefix}",
        "Status": "Enabled",
        "Filter": {"Prefix": f"{settings.prefix}/"},
        "Expiration": {"Days": 12},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 3},
    }
    s3.put_bucket_lifecycle_configuration(
        Bucket=bucket, LifecycleConfiguration={"Rules": [theirs, ours]}
    )
    here = settings.model_copy(update={"bucket": bucket})
    assert all(finding.ok for finding in await S3SnsDriver.examine(options, here))
    assert await S3SnsDriver.provision(options, here) == []
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    (wrong,) = [each for each in await S3SnsDriver.examine(options, here) if not each.ok]
    assert "doctor --create" in wrong.remedy
    assert len(await S3SnsDriver.provision(options, here)) == 1
    assert all(finding.ok for finding in await S3SnsDriver.examine(options, here))
    rules = {
        each["ID"]: each for each in s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    }
    assert rules[ours["ID"]]["Expiration"]["Days"] == 12
    assert rules[ours["ID"]]["NoncurrentVersionExpiration"]["NoncurrentDays"] == 1
    assert rules[ours["ID"]]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 3
    assert rules["logs"]["Expiration"]["Days"] == 2


async def test_doctor_has_unfinished_uploads_removed(settings: S3SnsSettings, s3: Any) -> None:
    """They cost money, no listing shows them, and a killed process cannot remove them."""
    options, bucket = QueueOptions(ttl=timedelta(days=1)), "unfinished"
    s3.create_bucket(Bucket=bucket)
    theirs = {
        "ID": "all",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "Expiration": {"Days": 30},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    }
    s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": [theirs]})
    here = settings.model_copy(update={"bucket": bucket})
    (wrong,) = [each for each in await S3SnsDriver.examine(options, here) if not each.ok]
    assert (wrong.subject, "doctor --create" in wrong.remedy) == ("unfinished uploads", True)
    (created,) = await S3SnsDriver.provision(options, here)
    assert "unfinished uploads" in created
    assert all(finding.ok for finding in await S3SnsDriver.examine(options, here))
    rules = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert [each["ID"] for each in rules] == ["all", f"streamq-{settings.prefix}"]
    assert rules[1]["Filter"] == {"Prefix": f"{settings.prefix}/"}


@pytest.mark.parametrize(
    ("rule", "days", "harm"),
    [
        ({"Filter": {"Prefix": ""}, "Expiration": {"Days": 30}}, 30, False),
        ({"Filter": {}, "Expiration": {"Days": 3}}, 3, True),
        ({"Filter": {"Prefix": "a/b/"}, "Expiration": {"Days": 3}}, None, True),
        ({"Filter": {"Prefix": "ab/"}, "Expiration": {"Days": 3}}, None, False),
        ({"Prefix": "a/", "Expiration": {"Days": 3}}, 3, True),
        ({"Filter": {"ObjectSizeGreaterThan": 9}, "Expiration": {"Days": 3}}, None, True),
        ({"Filter": {"Tag": {"Key": "k"}}, "Expiration": {"Days": 3}}, None, False),
        (
            {"Filter": {"And": {"Prefix": "x/", "ObjectSizeLessThan": 9}}, "Expiration": {}},
            None,
            False,
        ),
        ({"Filter": {}, "Expiration": {"Date": "2026-12-01"}}, None, True),
        ({"Filter": {}, "Transitions": [{"Days": 3, "StorageClass": "GLACIER"}]}, None, True),
        ({"Filter": {}, "Transitions": [{"Days": 3, "StorageClass": "GLACIER_IR"}]}, None, False),
    ],
)
def test_effect_of_foreign_rules_on_streams_is_recognized(
    rule: dict[str, Any], days: int | None, harm: bool
) -> None:
    """A rule for the whole bucket removes the beginning of every long stream."""
    found = LifecycleRules([rule | {"Status": "Enabled"}], "a/")
    assert found.days() == days
    assert (found.harm(8) is not None) == harm
    switched_off = LifecycleRules([rule | {"Status": "Disabled"}], "a/")
    assert (switched_off.days(), switched_off.harm(8)) == (None, None)
