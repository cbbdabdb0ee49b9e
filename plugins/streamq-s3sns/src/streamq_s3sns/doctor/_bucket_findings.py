"""Examines how a bucket is encrypted, who may read it, and what keeps its objects.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any

from streamq.driver import BackendError, Finding, StreamqError
from streamq_aws import error_code
from streamq_s3sns._errors import client_errors
from streamq_s3sns._settings import S3SnsSettings

_ABSENT = frozenset(
    {
        *("ServerSideEncryptionConfigurationNotFoundError", "NoSuchBucketPolicy"),
        *("ObjectLockConfigurationNotFoundError", "ObjectLockConfigurationNotFound"),
    }
)
_DEMAND = "s3:x-amz-server-side-encryption"
_ALGORITHM, _KEY = "ServerSideEncryption", "SSEKMSKeyId"


async def examine_bucket(s3: Any, settings: S3SnsSettings) -> list[Finding]:
    """Return what is found; what may not be examined is no fault.

    Args:
        s3: A client of S3.
        settings: Name the bucket and the encryption that uploads demand.
    """
    bucket = {"Bucket": settings.bucket}
    return [
        await _finding("encryption", s3.get_bucket_encryption(**bucket), settings, _encryption),
        await _finding("bucket policy", s3.get_bucket_policy(**bucket), settings, _policy),
        await _finding("public access", s3.get_bucket_policy_status(**bucket), settings, _public),
        await _finding("object lock", s3.get_object_lock_configuration(**bucket), settings, _lock),
    ]


async def _finding(
    subject: str, request: Awaitable[Any], settings: S3SnsSettings, judge: Any
) -> Finding:
    answer: Mapping[str, Any] = {}
    try:
        with client_errors(f"bucket {settings.bucket}"):
            answer = await request
    except StreamqError as exc:
        is_absent = isinstance(exc, BackendError) and error_code(exc.__cause__ or exc) in _ABSENT
        if not is_absent:
            return Finding(subject, True, f"not examined: {exc}")
    found: Finding = judge(subject, answer, settings)
    return found


def _encryption(subject: str, answer: Mapping[str, Any], settings: S3SnsSettings) -> Finding:
    rules = answer.get("ServerSideEncryptionConfiguration", {}).get("Rules") or [{}]
    default = rules[0].get("ApplyServerSideEncryptionByDefault", {})
    algorithm = settings.encryption or default.get("SSEAlgorithm")
    if algorithm is None:
        return Finding(subject, True, "what the server does by default")
    by = "each upload demands" if settings.encryption else "the bucket's default is"
    key = settings.kms_key_id if settings.encryption else default.get("KMSMasterKeyID")
    detail = f"{by} {algorithm}" + (f" with key {key}" if key else "")
    has_bucket_key = settings.bucket_key
    if has_bucket_key is None:
        has_bucket_key = bool(rules[0].get("BucketKeyEnabled"))
    if algorithm == "aws:kms" and not has_bucket_key:
        return Finding(
            subject,
            True,
            f"{detail}, and each segment costs a request to KMS, whose limit writers share",
            "set STREAMQ_S3SNS_ENCRYPTION=aws:kms and STREAMQ_S3SNS_BUCKET_KEY=true, or the "
            "bucket's own bucket key",
            is_warning=True,
        )
    if "kms" in algorithm:
        detail += "; `--write` shows whether these credentials may use the key"
    return Finding(subject, True, detail)


def _policy(subject: str, answer: Mapping[str, Any], settings: S3SnsSettings) -> Finding:
    missing = [each for each in _demands(answer.get("Policy")) if each not in _sent(settings)]
    if not missing:
        return Finding(subject, True, "it demands no header that uploads lack")
    return Finding(
        subject,
        False,
        f"it refuses uploads without {', '.join(missing)}",
        "set STREAMQ_S3SNS_ENCRYPTION (and STREAMQ_S3SNS_KMS_KEY_ID) to what the policy demands",
    )


def _sent(settings: S3SnsSettings) -> set[str]:
    sent = settings.encryption_arguments
    return ({_DEMAND} if _ALGORITHM in sent else set()) | (
        {f"{_DEMAND}-aws-kms-key-id"} if _KEY in sent else set()
    )


def _demands(policy: str | None) -> list[str]:
    """Return the headers for encryption without which a policy denies uploads."""
    found: set[str] = set()
    for statement in _statements(policy):
        actions = statement.get("Action", ())
        actions = [actions] if isinstance(actions, str) else actions
        if statement.get("Effect") != "Deny" or not {"s3:PutObject", "s3:*", "*"} & set(actions):
            continue
        for operator, condition in statement.get("Condition", {}).items():
            for key, value in condition.items():
                is_demand = operator in ("StringNotEquals", "StringNotLike") or (
                    operator == "Null" and str(value).strip("[]'").lower() == "true"
                )
                if is_demand and key.lower().startswith(_DEMAND):
                    found.add(key.lower())
    return sorted(found)


def _statements(policy: str | None) -> Iterable[dict[str, Any]]:
    try:
        statements = json.loads(policy or "{}").get("Statement", [])
    except ValueError:
        return []
    return [statements] if isinstance(statements, dict) else statements


def _public(subject: str, answer: Mapping[str, Any], settings: S3SnsSettings) -> Finding:
    if answer.get("PolicyStatus", {}).get("IsPublic"):
        return Finding(
            subject,
            False,
            f"the policy of bucket {settings.bucket} is public: anybody may read streams",
            "narrow its `Principal`, and switch on `Block Public Access`",
        )
    return Finding(subject, True, "the bucket's policy gives none")


def _lock(subject: str, answer: Mapping[str, Any], _: S3SnsSettings) -> Finding:
    found = answer.get("ObjectLockConfiguration", {})
    if found.get("ObjectLockEnabled") != "Enabled":
        return Finding(subject, True, "there is none")
    kept = found.get("Rule", {}).get("DefaultRetention", {})
    if not kept:
        return Finding(subject, True, "on, and keeps nothing by default")
    time = f"{kept['Years']} years" if "Years" in kept else f"{kept.get('Days')} days"
    return Finding(
        subject,
        True,
        f"each object is kept for {time} ({kept.get('Mode')}), whatever deletes it",
        "use a bucket without a default retention, or expect to pay for every stream for that time",
        is_warning=True,
    )
