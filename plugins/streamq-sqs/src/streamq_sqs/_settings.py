"""Defines the driver's settings, ``STREAMQ_SQS_...``.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from streamq_aws import AwsSettings

MESSAGE_OVERHEAD = 256
"""Upper bound of the bytes of a message beside its record: body, attribute name and type."""


class SqsSettings(AwsSettings):
    """Settings of the SQS driver."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_SQS_")

    toml_table = "sqs"

    queue_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,24}$")] = Field(
        default="streamq-", description="beginning of the names of all queues"
    )
    fifo: bool = Field(
        default=True,
        description="FIFO queues keep the order and drop repeats; standard queues are cheaper and "
        "take more messages a second, and streamq's reader puts them into order",
    )
    visibility_seconds: Annotated[int, Field(ge=2, le=43_200)] = Field(
        default=30,
        description="how long SQS hides a received message; that of a reader that died is "
        "delivered again after this time",
    )
    hold_seconds: Annotated[int, Field(ge=2, le=43_200)] = Field(
        default=900,
        description="longest time that a slow reader keeps a message; later it is delivered again, "
        "and dropped as a repeat",
    )
    max_polls: Annotated[int, Field(ge=1)] = Field(
        default=512, description="most readers that wait at the same time; each holds a connection"
    )
    max_message_bytes: Annotated[int, Field(ge=8_192, le=1_048_576)] = Field(
        default=1_048_576,
        description="largest message; 262144 for servers that accept no more",
    )
    kms_key_id: str | None = Field(
        default=None,
        description="key of KMS (id, ARN or alias) with which queues are created",
    )
    managed_encryption: bool | None = Field(
        default=None,
        description="whether queues are created with keys that SQS owns; by default SQS decides, "
        "on AWS for yes",
    )

    @model_validator(mode="after")
    def _one_kind_of_encryption(self) -> Self:
        if self.kms_key_id and self.managed_encryption:
            raise ValueError("kms_key_id and managed_encryption exclude each other; unset one")
        return self

    @property
    def encryption_attributes(self) -> dict[str, str]:
        """The attributes of a queue at its creation, for its encryption."""
        demanded: dict[str, str] = {}
        if self.kms_key_id:
            demanded["KmsMasterKeyId"] = self.kms_key_id
        if self.managed_encryption is not None:
            demanded["SqsManagedSseEnabled"] = str(self.managed_encryption).lower()
        return demanded
