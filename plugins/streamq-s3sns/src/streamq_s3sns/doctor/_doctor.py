"""Examines bucket, clock, versions, lifecycle rules and topic, and creates what is missing.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    ConfigurationError,
    Finding,
    QueueOptions,
    StreamqError,
)
from streamq_aws import AwsClients, clock_finding, error_code
from streamq_s3sns._errors import BACKEND, client_errors
from streamq_s3sns._settings import S3SnsSettings, check_topic_region

from ._bucket_findings import examine_bucket
from ._lifecycle_rules import NONCURRENT, UNFINISHED, LifecycleRules

_RULE_ID = "streamq-{prefix}"
_DAY_SECONDS = 86_400
_SPARE_DAYS = 7
_UNFINISHED_DAYS = 2  # enough time for the largest object that is handed over, at 0.5 MB/s
_DEFAULT_REGION = "us-east-1"  # S3 refuses this name when a bucket is created there
_ELSEWHERE = "check AWS_DEFAULT_REGION, and the endpoint if one is set"
_NO_RULES = "NoSuchLifecycleConfiguration"


class Doctor:
    """Examines bucket and topic, and creates them.

    Args:
        options: The options with which queues are opened.
        settings: Name the bucket and the topic.
        clients: Opens the clients.
    """

    def __init__(self, options: QueueOptions, settings: S3SnsSettings, clients: AwsClients) -> None:
        self._settings = settings
        self._clients = clients
        key = settings.notification_kms_key_id
        self._topic_encryption = {"Attributes": {"KmsMasterKeyId": key}} if key else {}
        # A lifecycle rule removes objects by age. A stream that is written to for longer than that
        # loses its beginning. The rule therefore waits for longer than the time to live.
        self._days = math.ceil(options.ttl.total_seconds() / _DAY_SECONDS) + _SPARE_DAYS

    async def examine(self) -> list[Finding]:
        """Examine everything, and change nothing."""
        s3 = await self._clients.client("s3")
        check_topic_region(self._settings, self._clients.region)
        bucket = self._settings.bucket
        subject = f"bucket {bucket}"
        try:
            with client_errors(subject):
                answer = await s3.list_objects_v2(
                    Bucket=bucket, Prefix=self._settings.prefix, MaxKeys=1
                )
        except BackendError as exc:
            return [Finding(subject, False, str(exc), "run `streamq doctor --create`")]
        return [
            Finding(subject, True, f"it exists ({self._clients.region or 'no region is set'})"),
            clock_finding(answer),
            await self._versions(s3),
            await self._rule(s3),
            await self._unfinished(s3),
            *await examine_bucket(s3, self._settings),
            await self._topic(),
        ]

    async def provision(self) -> list[str]:
        """Create the bucket, the rule and the topic, where they are missing."""
        s3 = await self._clients.client("s3")
        check_topic_region(self._settings, self._clients.region)  # before anything is created
        created: list[str] = []
        bucket = self._settings.bucket
        if not await self._has_bucket(s3):
            region = self._clients.region
            where: dict[str, Any] = {}
            if region and region != _DEFAULT_REGION:
                where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
            with client_errors(f"bucket {bucket}"):
                await s3.create_bucket(Bucket=bucket, **where)
            created.append(f"bucket {bucket} in {region}")
        created += await self._provide_rule(s3)
        topic = self._settings.topic_arn
        if topic is not None and not (await self._topic()).ok:
            sns = await self._clients.client("sns")
            with client_errors(f"topic {topic}"):
                made = (
                    await sns.create_topic(Name=topic.rpartition(":")[2], **self._topic_encryption)
                )["TopicArn"]
            if made != topic:
                raise ConfigurationError(
                    f"these credentials have created topic {made}, and not {topic}; set "
                    "STREAMQ_S3SNS_TOPIC_ARN to the former, or use the account and region of the "
                    "latter",
                    backend=BACKEND,
                )
            created.append(f"topic {topic}")
        return created

    async def _provide_rule(self, s3: Any) -> list[str]:
        """Create streamq's own lifecycle rule, or add to it what is missing."""
        found = await self._lifecycle(s3)
        prefix = self._settings.prefix
        actions: dict[str, Any] = {}
        created: list[str] = []
        if found.days() is None:
            actions["Expiration"] = {"Days": self._days}
            created.append(f"rule that removes {prefix}/ after {self._days} days")
        if found.noncurrent_days() is None:
            actions[NONCURRENT] = {"NoncurrentDays": 1}
            if await self._keeps_versions(s3):
                created.append(f"rule that removes old versions below {prefix}/ a day later")
        if found.unfinished_days() is None:
            actions[UNFINISHED] = {"DaysAfterInitiation": _UNFINISHED_DAYS}
            created.append(
                f"rule that removes unfinished uploads below {prefix}/ after {_UNFINISHED_DAYS} "
                "days"
            )
        if created:
            rules = found.with_rule(_RULE_ID.format(prefix=prefix)[:255], actions)
            with client_errors(f"lifecycle of bucket {self._settings.bucket}"):
                await s3.put_bucket_lifecycle_configuration(
                    Bucket=self._settings.bucket, LifecycleConfiguration={"Rules": rules}
                )
        return created

    async def _has_bucket(self, s3: Any) -> bool:
        try:
            with client_errors(f"bucket {self._settings.bucket}"):
                await s3.head_bucket(Bucket=self._settings.bucket)
        except BackendError:
            return False
        return True

    async def _keeps_versions(self, s3: Any) -> bool:
        with client_errors("versions"):
            answer = await s3.get_bucket_versioning(Bucket=self._settings.bucket)
        return bool(answer.get("Status"))

    async def _versions(self, s3: Any) -> Finding:
        subject = "versions"
        try:
            if not await self._keeps_versions(s3):
                return Finding(subject, True, "none are kept: deleted objects are gone")
            days = (await self._lifecycle(s3)).noncurrent_days()
        except StreamqError as exc:
            detail = f"unknown, so `erases` is not promised: {exc}"
            return Finding(subject, True, detail)
        detail = "the bucket keeps deleted objects, so `erases` is not promised"
        if days is not None:
            return Finding(subject, True, f"{detail}; a rule removes them {days} days later")
        return Finding(
            subject,
            False,
            f"{detail}; no rule removes them, so they cost money for ever",
            "run `streamq doctor --create`, or have a rule remove noncurrent versions",
        )

    async def _rule(self, s3: Any) -> Finding:
        subject = "lifecycle rule"
        try:
            found = await self._lifecycle(s3)
        except AccessDeniedError as exc:
            return Finding(subject, True, f"not examined: {exc}")
        harm = found.harm(self._days - _SPARE_DAYS + 1)
        if harm is not None:
            return Finding(
                subject,
                False,
                f"{harm}, before their streams expire",
                f"let the rule wait for {self._days} days, or shorten STREAMQ_TTL_SECONDS",
            )
        days = found.days()
        if days is None:
            return Finding(
                subject,
                False,
                "there is none, so objects that no sweep removes stay and cost money",
                "run `streamq doctor --create`",
            )
        return Finding(subject, True, f"objects are removed after {days} days")

    async def _unfinished(self, s3: Any) -> Finding:
        subject = "unfinished uploads"
        try:
            days = (await self._lifecycle(s3)).unfinished_days()
        except AccessDeniedError as exc:
            return Finding(subject, True, f"not examined: {exc}")
        if days is None:
            return Finding(
                subject,
                False,
                "no rule removes them: if a process is killed while it hands an object over, the "
                "parts stay and cost money, though no listing shows them",
                "run `streamq doctor --create`",
            )
        return Finding(subject, True, f"they are removed {days} days after they were begun")

    async def _lifecycle(self, s3: Any) -> LifecycleRules:
        prefix = f"{self._settings.prefix}/"
        try:
            with client_errors(f"lifecycle of bucket {self._settings.bucket}"):
                answer = await s3.get_bucket_lifecycle_configuration(Bucket=self._settings.bucket)
        except BackendError as exc:
            if error_code(exc.__cause__ or exc) == _NO_RULES:
                return LifecycleRules((), prefix)
            raise
        return LifecycleRules(answer.get("Rules") or (), prefix)

    async def _topic(self) -> Finding:
        topic = self._settings.topic_arn
        if topic is None:
            seconds = self._settings.poll_seconds
            return Finding("topic", True, f"none is set: readers poll every {seconds:g} s")
        subject = f"topic {topic}"
        sns = await self._clients.client("sns")
        try:
            with client_errors(subject):
                found = (await sns.get_topic_attributes(TopicArn=topic))["Attributes"]
        except AccessDeniedError as exc:
            return Finding(subject, True, f"not examined: {exc}")
        except BackendError as exc:
            return Finding(subject, False, str(exc), "run `streamq doctor --create`")
        readers = found.get("SubscriptionsConfirmed", "0")
        detail = f"it exists; {readers} queues of readers are subscribed to it"
        key = found.get("KmsMasterKeyId")
        if key and not self._settings.notification_kms_key_id:
            return Finding(
                subject,
                True,
                f"{detail}; it is encrypted with key {key}, and the queues of readers are not",
                "set STREAMQ_S3SNS_NOTIFICATION_KMS_KEY_ID, and let writers use the key "
                "(kms:GenerateDataKey, kms:Decrypt)",
                is_warning=True,
            )
        return Finding(subject, True, detail)


@asynccontextmanager
async def open_doctor(options: QueueOptions, settings: S3SnsSettings) -> AsyncIterator[Doctor]:
    """Give a doctor, and close its clients afterwards."""
    clients = AwsClients(settings, backend=BACKEND)
    try:
        yield Doctor(options, settings, clients)
    finally:
        await clients.aclose()
