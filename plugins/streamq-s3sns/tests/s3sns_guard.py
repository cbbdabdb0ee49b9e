"""Reads the permissions in the README, and refuses every request that needs others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Self

import pytest
from botocore.exceptions import ClientError

from streamq_aws import AwsClients
from streamq_aws.embedded import REGION
from streamq_s3sns import S3SnsSettings

README = Path(__file__).parents[1] / "README.md"
OPEN_CLIENT = AwsClients.client

VERSIONING = "s3:GetBucketVersioning"
"""Every queue needs it, and promises less without it."""

NAMES = {
    "ListObjectsV2": "s3:ListBucket",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject",
    "CreateMultipartUpload": "s3:PutObject",
    "UploadPart": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "PutBucketLifecycleConfiguration": "s3:PutLifecycleConfiguration",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "PublishBatch": "sns:Publish",
}
"""Operations that have another name in policies than in the client."""

FREE = "sts:GetCallerIdentity"
"""The operation that needs no permission."""


def action(service: str, operation: str) -> str:
    """Return the name of an operation in policies."""
    return NAMES.get(operation, f"{service}:{operation}")


def table() -> dict[str, tuple[set[str], set[str]]]:
    """Return the README's table: permissions without a topic, and additional ones with a topic."""
    rows = re.findall(r"^\| (.+?) \| (`s3:.*?) \| (.*?) *\|$", README.read_text(), re.MULTILINE)
    return {
        role: (set(re.findall(r"\w+:\w+", plain)), set(re.findall(r"\w+:\w+", topic)))
        for role, plain, topic in rows
    }


def needs(role: str, *, topic: bool = True) -> set[str]:
    """Return the permissions in one row of the README's table."""
    plain, additional = table()[role]
    return plain | additional if topic else plain


def policy(settings: S3SnsSettings) -> Iterator[tuple[str, str]]:
    """Iterate over the actions in the README's policy, each with its resource."""
    (block,) = re.findall(r"```json\n(.*?)```", README.read_text(), re.DOTALL)
    places = {
        "TOPIC_ARN": settings.topic_arn or "",
        "BUCKET": settings.bucket,
        "PREFIX": settings.prefix,
        "REGION": REGION,
        "ACCOUNT": "000000000000",
    }
    for name, value in places.items():
        block = block.replace(name, value)
    for statement in json.loads(block)["Statement"]:
        actions = statement["Action"]
        for each in [actions] if isinstance(actions, str) else actions:
            yield each, statement["Resource"]


def resources(service: str, params: Mapping[str, Any]) -> list[str]:
    """Return the resources of a request, as policies name them."""
    if service == "s3":
        deleted = params.get("Delete", {}).get("Objects", ())
        keys = [each["Key"] for each in deleted] or [
            params[key] for key in ("Key",) if key in params
        ]
        bucket = f"arn:aws:s3:::{params['Bucket']}"
        return [f"{bucket}/{key}" for key in keys] or [bucket]
    if service == "sqs" and "QueueNamePrefix" not in params:
        name = params.get("QueueName") or params["QueueUrl"].rpartition("/")[2]
        return [f"arn:aws:sqs:{REGION}:000000000000:{name}"]
    return [params.get("TopicArn") or params.get("SubscriptionArn") or "*"]


class Guard:
    """A stand-in for IAM, which the emulator lacks: refuses and records requests.

    Attributes:
        allowed: Actions; those in the README's policy only on the resources there.
        used: Actions that were requested and allowed.
        refused: Actions that were not allowed, or not on these resources.
    """

    def __init__(self, settings: S3SnsSettings, allowed: set[str]) -> None:
        self.allowed = allowed
        self.used: set[str] = set()
        self.refused: set[str] = set()
        self._policy = list(policy(settings))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> Self:
        """Check the requests of every client that is opened from now on."""

        async def opened(clients: AwsClients, service: str, **options: Any) -> Any:
            client = await OPEN_CLIENT(clients, service, **options)
            # Presigned URLs included: a URL opens what its maker may read.
            client.meta.events.register("before-parameter-build", self._check)
            return client

        monkeypatch.setattr(AwsClients, "client", opened)
        return self

    def _check(self, params: Mapping[str, Any], model: Any, **_: object) -> None:
        service, operation = model.service_model.service_name, model.name
        requested = {action(service, operation)} - {FREE}
        if operation == "CreateQueue" and "tags" in params:
            requested.add("sqs:TagQueue")
        for each in sorted(requested):
            if not all(self._allows(each, one) for one in resources(service, params)):
                self.refused.add(each)
                error = {"Code": "AccessDenied", "Message": f"not allowed: {each}"}
                answer: Any = {"Error": error, "ResponseMetadata": {"HTTPStatusCode": 403}}
                raise ClientError(answer, operation)
        self.used |= requested

    def _allows(self, requested: str, resource: str) -> bool:
        places = [place for each, place in self._policy if each == requested]
        matches = any(fnmatchcase(resource, place) for place in places)
        return requested in self.allowed and (matches or not places)
