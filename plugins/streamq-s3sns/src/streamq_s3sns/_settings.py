"""The driver's settings, and the check that the topic fits them.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from streamq.driver import ConfigurationError
from streamq_aws import AwsSettings

from ._errors import BACKEND

_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_TOPIC = re.compile(r"arn:[a-z0-9-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,256}")
_WITH_KEY = ("aws:kms", "aws:kms:dsse")
_DIRECTORY_BUCKETS = ("--x-s3", "--xa-s3")  # the second is an access point of one


class S3SnsSettings(AwsSettings):
    """Settings of the driver, from ``STREAMQ_S3SNS_...`` or the table ``[s3sns]``."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_S3SNS_")
    toml_table = "s3sns"

    bucket: str = Field(default="", description="S3 bucket that holds the streams")
    prefix: str = Field(
        default="streamq", description="beginning of every key, to share a bucket with others"
    )
    topic_arn: str | None = Field(
        default=None,
        description="SNS topic that wakes readers, `arn:aws:sns:region:account:name`; without one "
        "they only poll",
    )
    poll_seconds: Annotated[float, Field(ge=0.05, le=60)] = Field(
        default=1.0,
        description="longest pause between two polls of a reader that waits; with a topic, the "
        "pause before the first poll without a notification",
    )
    pack: bool = Field(
        default=True,
        description="whether the segments of a slow stream are packed for later readers, a hundred "
        "into one; off where objects must never be written twice",
    )
    encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None,
        description="server-side encryption that each upload demands: `AES256`, `aws:kms` or "
        "`aws:kms:dsse`; by default what the bucket "
        "is set to",
    )
    kms_key_id: str | None = Field(
        default=None,
        description="key of KMS (id, ARN or alias) for `aws:kms` and `aws:kms:dsse`; by default "
        "the account's own key for S3",
    )
    bucket_key: bool | None = Field(
        default=None,
        description="whether `aws:kms` uses a key of the bucket, which makes fewer requests to "
        "KMS; by default what the bucket is set to",
    )
    notification_kms_key_id: str | None = Field(
        default=None,
        description="key of KMS for the queues that wake readers, and for the topic that `streamq "
        "doctor --create` creates; its policy has to let SNS use it",
    )

    @field_validator("bucket")
    @classmethod
    def _bucket_lists_in_order(cls, value: str) -> str:
        if value.endswith(_DIRECTORY_BUCKETS):
            raise ValueError(
                "must not be a directory bucket (S3 Express One Zone): those do not list keys in "
                "order; use a general purpose bucket"
            )
        return value

    @field_validator("prefix")
    @classmethod
    def _prefix_is_plain(cls, value: str) -> str:
        if not _PREFIX.fullmatch(value) or value.endswith("/") or "//" in value or "/." in value:
            raise ValueError(
                "must be up to 128 letters, digits, '.', '_', '-' and single slashes inside"
            )
        return value

    @field_validator("topic_arn")
    @classmethod
    def _topic_is_an_arn(cls, value: str | None) -> str | None:
        if not value:
            return None
        if not _TOPIC.fullmatch(value):
            raise ValueError("must be the ARN of a standard topic, arn:aws:sns:region:account:name")
        return value

    @field_validator("encryption", "kms_key_id", "notification_kms_key_id", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    @model_validator(mode="after")
    def _key_fits_encryption(self) -> Self:
        if self.kms_key_id and self.encryption not in _WITH_KEY:
            raise ValueError(
                "kms_key_id needs encryption=aws:kms or encryption=aws:kms:dsse "
                f"(encryption is {self.encryption or 'not set'})"
            )
        if self.bucket_key is not None and self.encryption != "aws:kms":
            raise ValueError(
                "bucket_key needs encryption=aws:kms "
                f"(encryption is {self.encryption or 'not set'})"
            )
        return self

    @property
    def encryption_arguments(self) -> dict[str, Any]:
        """The arguments of a request that creates an object, for its encryption."""
        demanded = {
            "ServerSideEncryption": self.encryption,
            "SSEKMSKeyId": self.kms_key_id,
            "BucketKeyEnabled": self.bucket_key,
        }
        return {name: value for name, value in demanded.items() if value is not None}

    @property
    def topic_region(self) -> str | None:
        """The region of the topic."""
        return self.topic_arn.split(":")[3] if self.topic_arn else None


def check_topic_region(settings: S3SnsSettings, region: str | None) -> None:
    """Check that the topic is in the region in which the clients look for it.

    Raises:
        ConfigurationError: It is in another region.
    """
    theirs = settings.topic_region
    if theirs is not None and region is not None and theirs != region:
        raise ConfigurationError(
            f"topic {settings.topic_arn} is in region {theirs}, and the region in use is {region}; "
            "set STREAMQ_S3SNS_TOPIC_ARN to a topic of that region, or STREAMQ_S3SNS_REGION to "
            "the topic's",
            backend=BACKEND,
        )
