"""What has to be there in an account, looked at and created."""

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
from streamq_aws import AwsClients, aws_errors, error_code

from ._lifecycle import NONCURRENT, UNFINISHED, Lifecycle
from ._segment import BACKEND
from ._services import check_region
from ._settings import S3SnsSettings

_RULE_ID = "streamq-{prefix}"
_DAY_SECONDS = 86_400
_SPARE_DAYS = 7
_UNFINISHED_DAYS = 2  # time enough for the largest object that is handed over, at 0.5 MB/s
_DEFAULT_REGION = "us-east-1"  # which nobody may name when a bucket is created there
_NO_RULES = "NoSuchLifecycleConfiguration"


class Doctor:
    """Looks at bucket and topic, and creates them.

    Args:
        options: What queues are opened with.
        settings: Where everything is.
        clients: Makes the clients.
    """

    def __init__(self, options: QueueOptions, settings: S3SnsSettings, clients: AwsClients) -> None:
        self._settings = settings
        self._clients = clients
        # Objects go by age, the oldest first: a stream that is written to for longer than that
        # loses its beginning. So there is time to spare beyond the time to live.
        self._days = math.ceil(options.ttl.total_seconds() / _DAY_SECONDS) + _SPARE_DAYS

    async def examine(self) -> list[Finding]:
        """Look at everything, and change nothing."""
        s3 = await self._clients.client("s3")
        check_region(self._settings, self._clients.region)
        bucket = self._settings.bucket
        subject = f"bucket {bucket}"
        try:
            with aws_errors(BACKEND, about=subject):
                await s3.list_objects_v2(Bucket=bucket, Prefix=self._settings.prefix, MaxKeys=1)
        except BackendError as exc:
            return [Finding(subject, False, str(exc), "run `streamq doctor --create`")]
        return [
            Finding(subject, True, f"it is there ({self._clients.region or 'no region is set'})"),
            await self._versions(s3),
            await self._rule(s3),
            await self._unfinished(s3),
            await self._topic(),
        ]

    async def provision(self) -> list[str]:
        """Create the bucket, the rule and the topic, where they are missing."""
        s3 = await self._clients.client("s3")
        check_region(self._settings, self._clients.region)  # before anything is created
        created: list[str] = []
        bucket = self._settings.bucket
        if not await self._has_bucket(s3):
            region = self._clients.region
            where: dict[str, Any] = {}
            if region and region != _DEFAULT_REGION:
                where = {"CreateBucketConfiguration": {"LocationConstraint": region}}
            with aws_errors(BACKEND, about=f"bucket {bucket}"):
                await s3.create_bucket(Bucket=bucket, **where)
            created.append(f"bucket {bucket} in {region}")
        created += await self._provide_rule(s3)
        topic = self._settings.topic_arn
        if topic is not None and not (await self._topic()).ok:
            sns = await self._clients.client("sns")
            with aws_errors(BACKEND, about=f"topic {topic}"):
                made = (await sns.create_topic(Name=topic.rpartition(":")[2]))["TopicArn"]
            if made != topic:
                raise ConfigurationError(
                    f"with these credentials topic {made} was created, and not {topic}; set "
                    "STREAMQ_S3SNS_TOPIC_ARN to the first, or use the account and region of the "
                    "second",
                    backend=BACKEND,
                )
            created.append(f"topic {topic}")
        return created

    async def _provide_rule(self, s3: Any) -> list[str]:
        """Create a lifecycle rule of our own, or add to it what is missing."""
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
            with aws_errors(BACKEND, about=f"lifecycle of bucket {self._settings.bucket}"):
                await s3.put_bucket_lifecycle_configuration(
                    Bucket=self._settings.bucket, LifecycleConfiguration={"Rules": rules}
                )
        return created

    async def _has_bucket(self, s3: Any) -> bool:
        try:
            with aws_errors(BACKEND, about=f"bucket {self._settings.bucket}"):
                await s3.head_bucket(Bucket=self._settings.bucket)
        except BackendError:
            return False
        return True

    async def _keeps_versions(self, s3: Any) -> bool:
        with aws_errors(BACKEND, about="versions"):
            answer = await s3.get_bucket_versioning(Bucket=self._settings.bucket)
        return bool(answer.get("Status"))

    async def _versions(self, s3: Any) -> Finding:
        subject = "versions"
        try:
            if not await self._keeps_versions(s3):
                return Finding(subject, True, "none are kept: what is deleted is gone")
            days = (await self._lifecycle(s3)).noncurrent_days()
        except StreamqError as exc:
            detail = f"not known, so that `erases` is not promised: {exc}"
            return Finding(subject, True, detail)
        detail = "the bucket keeps what is deleted, so that `erases` is not promised"
        if days is not None:
            return Finding(subject, True, f"{detail}; it goes {days} days later")
        return Finding(
            subject,
            False,
            f"{detail}, and it stays and is paid for without an end",
            "run `streamq doctor --create`, or have a rule remove noncurrent versions",
        )

    async def _rule(self, s3: Any) -> Finding:
        subject = "lifecycle rule"
        try:
            found = await self._lifecycle(s3)
        except AccessDeniedError as exc:
            return Finding(subject, True, f"not looked at: {exc}")
        harm = found.harm(self._days - _SPARE_DAYS + 1)
        if harm is not None:
            return Finding(
                subject,
                False,
                f"{harm}, before their streams do",
                f"let the rule wait for {self._days} days, or shorten STREAMQ_TTL_SECONDS",
            )
        days = found.days()
        if days is None:
            return Finding(
                subject,
                False,
                "there is none, so that what no sweep removes stays and is paid for",
                "run `streamq doctor --create`",
            )
        return Finding(subject, True, f"objects go after {days} days")

    async def _unfinished(self, s3: Any) -> Finding:
        subject = "unfinished uploads"
        try:
            days = (await self._lifecycle(s3)).unfinished_days()
        except AccessDeniedError as exc:
            return Finding(subject, True, f"not looked at: {exc}")
        if days is None:
            return Finding(
                subject,
                False,
                "no rule removes them: parts that a killed process leaves of an object that it "
                "handed over stay, and are paid for, though no listing shows them",
                "run `streamq doctor --create`",
            )
        return Finding(subject, True, f"they go {days} days after they were begun")

    async def _lifecycle(self, s3: Any) -> Lifecycle:
        prefix = f"{self._settings.prefix}/"
        try:
            with aws_errors(BACKEND, about=f"lifecycle of bucket {self._settings.bucket}"):
                answer = await s3.get_bucket_lifecycle_configuration(Bucket=self._settings.bucket)
        except BackendError as exc:
            if error_code(exc.__cause__ or exc) == _NO_RULES:
                return Lifecycle((), prefix)
            raise
        return Lifecycle(answer.get("Rules") or (), prefix)

    async def _topic(self) -> Finding:
        topic = self._settings.topic_arn
        if topic is None:
            seconds = self._settings.poll_seconds
            return Finding("topic", True, f"none is set: readers poll, every {seconds:g} s")
        subject = f"topic {topic}"
        sns = await self._clients.client("sns")
        try:
            with aws_errors(BACKEND, about=subject):
                await sns.get_topic_attributes(TopicArn=topic)
        except AccessDeniedError as exc:
            return Finding(subject, True, f"not looked at: {exc}")
        except BackendError as exc:
            return Finding(subject, False, str(exc), "run `streamq doctor --create`")
        return Finding(subject, True, "it is there")


@asynccontextmanager
async def doctor(options: QueueOptions, settings: S3SnsSettings) -> AsyncIterator[Doctor]:
    """Give a doctor, whose clients are closed afterwards."""
    clients = AwsClients(settings, backend=BACKEND)
    try:
        yield Doctor(options, settings, clients)
    finally:
        await clients.aclose()
