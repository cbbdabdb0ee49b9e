"""Tests what the doctor examines and creates before the first stream."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from aws_refusing_proxy import Refusal, RefusingProxy
from streamq.driver import ConfigurationError, Entry, Finding, QueueOptions, StreamId
from streamq_aws import clock_finding
from streamq_aws.embedded import Ministack
from streamq_s3sns import S3SnsDriver, S3SnsSettings
from streamq_s3sns.doctor._bucket_findings import _demands
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
    settings: S3SnsSettings, aws: Ministack
) -> None:
    """Two commands lead from an empty account to a first stream."""
    options = QueueOptions(ttl=timedelta(days=1))
    topic = "arn:aws:sns:us-east-1:000000000000:fresh"
    fresh = settings.model_copy(
        update={"bucket": "fresh", "topic_arn": topic, "notification_kms_key_id": "alias/ours"}
    )
    assert [finding.ok for finding in await S3SnsDriver.examine(options, fresh)] == [False]
    assert len(await S3SnsDriver.provision(options, fresh)) == 4
    with aws.client("sns") as sns:
        attributes = sns.get_topic_attributes(TopicArn=topic)["Attributes"]
    assert attributes["KmsMasterKeyId"] == "alias/ours"
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


def _finding(findings: Sequence[Finding], subject: str) -> Finding:
    """Return the finding about a subject."""
    (found,) = [each for each in findings if each.subject == subject]
    return found


async def test_doctor_finds_what_a_bucket_does_to_uploads_and_deletions(
    settings: S3SnsSettings, s3: Any
) -> None:
    """A policy that demands encryption, keys of KMS, and objects that nobody can delete."""
    options, bucket = QueueOptions(ttl=timedelta(days=1)), "strict"
    s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    here = settings.model_copy(update={"bucket": bucket})
    found = await S3SnsDriver.examine(options, here)
    for subject in ("clock", "encryption", "bucket policy", "public access", "object lock"):
        assert _finding(found, subject).ok
        assert not _finding(found, subject).is_warning
    deny = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
        "Condition": {"StringNotEquals": {"s3:x-amz-server-side-encryption": "aws:kms"}},
    }
    policy = {"Version": "2012-10-17", "Statement": [deny]}
    s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    by_default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/ours"}
    s3.put_bucket_encryption(
        Bucket=bucket,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": by_default}]
        },
    )
    s3.put_object_lock_configuration(
        Bucket=bucket,
        ObjectLockConfiguration={
            "ObjectLockEnabled": "Enabled",
            "Rule": {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 30}},
        },
    )
    found = await S3SnsDriver.examine(options, here)
    assert "STREAMQ_S3SNS_ENCRYPTION" in _finding(found, "bucket policy").remedy
    assert not _finding(found, "bucket policy").ok
    assert "alias/ours" in _finding(found, "encryption").detail
    assert "BUCKET_KEY" in _finding(found, "encryption").remedy
    lock = _finding(found, "object lock")
    assert (lock.ok, lock.is_warning, "30 days" in lock.detail) == (True, True, True)
    demanding = {"encryption": "aws:kms", "kms_key_id": "alias/ours", "bucket_key": True}
    found = await S3SnsDriver.examine(options, here.model_copy(update=demanding))
    assert _finding(found, "bucket policy").ok
    assert not _finding(found, "encryption").is_warning


@pytest.mark.parametrize(
    ("operator", "key", "value", "demanded"),
    [
        ("StringNotEquals", "s3:x-amz-server-side-encryption", "AES256", True),
        ("StringNotEqualsIfExists", "s3:X-Amz-Server-Side-Encryption", "AES256", False),
        ("Null", "s3:x-amz-server-side-encryption", "true", True),
        ("Null", "s3:x-amz-server-side-encryption", ["true"], True),
        ("Null", "s3:x-amz-server-side-encryption", "false", False),
        ("StringNotLike", "s3:x-amz-server-side-encryption-aws-kms-key-id", "*", True),
        ("StringEquals", "s3:x-amz-server-side-encryption", "AES256", False),
        ("Bool", "aws:SecureTransport", "false", False),
    ],
)
@pytest.mark.parametrize("action", ["s3:PutObject", ["s3:*"], ["s3:GetObject"]])
def test_demands_of_a_bucket_policy_are_recognized(
    operator: str, key: str, value: object, demanded: bool, action: object
) -> None:
    """Policies for the same purpose are written in several ways."""
    statement = {"Effect": "Deny", "Action": action, "Condition": {operator: {key: value}}}
    for effect, statements in (("Deny", statement), ("Allow", [statement | {"Effect": "Allow"}])):
        found = _demands(json.dumps({"Statement": statements}))
        assert bool(found) == (demanded and effect == "Deny" and action != ["s3:GetObject"])


async def test_doctor_says_what_it_may_not_examine(settings: S3SnsSettings, aws: Ministack) -> None:
    """Permissions for examining are not those for working."""
    options = QueueOptions(ttl=timedelta(days=1))
    async with RefusingProxy(aws.address) as proxy:
        here = settings.model_copy(update={"endpoint_url": proxy.url})
        for code, status in (("AccessDenied", 403), ("NotImplemented", 501)):
            proxy.refusal = Refusal(
                code, status, only=r"^GET [^ ]*\?(encryption|policy|policyStatus|object-lock)"
            )
            found = await S3SnsDriver.examine(options, here)
            for subject in ("encryption", "bucket policy", "public access", "object lock"):
                assert code in _finding(found, subject).detail
                assert _finding(found, subject).ok


@pytest.mark.parametrize(
    ("ahead", "ok", "warns"),
    [(0, True, False), (60, True, True), (-60, True, True), (900, False, False)],
)
def test_doctor_compares_the_clocks(ahead: float, ok: bool, warns: bool) -> None:
    """From 300 s on requests are refused, with words about signatures."""
    said = format_datetime(datetime.fromtimestamp(time.time() - ahead, UTC), usegmt=True)
    found = clock_finding({"ResponseMetadata": {"HTTPHeaders": {"date": said}}})
    assert (found.ok, found.is_warning) == (ok, warns)
    assert bool(found.remedy) == (ahead != 0)
