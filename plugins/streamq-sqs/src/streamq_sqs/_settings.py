"""Defines the driver's settings, ``STREAMQ_SQS_...``.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streamq_aws import AwsSettings

MESSAGE_OVERHEAD = 256
"""Upper bound of the bytes of a message beside its record: body, attribute name and type."""


class SqsSettings(AwsSettings):
    """Settings of the SQS driver."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_SQS_")

    toml_table = "sqs"

    queue_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,24}$")] = Field(
        default="streamq-", description="how the names of all queues begin"
    )
    fifo: bool = Field(
        default=True,
        description="FIFO queues keep the order and drop repeats; standard queues are cheaper and "
        "take more messages a second, and streamq's reader puts them into order",
    )
    visibility_seconds: Annotated[int, Field(ge=2, le=43_200)] = Field(
        default=30,
        description="after how long what a dead reader had taken comes again",
    )
    hold_seconds: Annotated[int, Field(ge=2, le=43_200)] = Field(
        default=900,
        description="for how long at most a slow reader keeps what it has taken; later it comes "
        "again, and is dropped as a repeat",
    )
    max_polls: Annotated[int, Field(ge=1)] = Field(
        default=512, description="most readers that wait at once: each holds a connection"
    )
    max_message_bytes: Annotated[int, Field(ge=8_192, le=1_048_576)] = Field(
        default=1_048_576,
        description="largest message; 262144 for servers that take no more",
    )
