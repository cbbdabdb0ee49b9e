"""Defines the settings that all AWS backends have.

Design: docs/design/aws.md.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from streamq.driver import DriverSettings


class AwsSettings(DriverSettings):
    """Base of the settings of AWS backends.

    Credentials have no setting. They come from the sources that every AWS tool uses: environment,
    profile, container or instance role, web identity, ``role_arn`` of a profile.
    """

    @classmethod
    def ambient_credentials(cls) -> Collection[str]:
        """Return the name of the sources above."""
        return ("credentials of AWS",)

    endpoint_url: str | None = Field(
        default=None,
        description="where the services are, if not at AWS; by default AWS_ENDPOINT_URL",
    )
    region: str | None = Field(
        default=None, description="AWS region; by default AWS_DEFAULT_REGION, AWS_REGION or profile"
    )
    profile: str | None = Field(
        default=None,
        description="profile of the AWS configuration files, which may name a role; by default "
        "AWS_PROFILE",
    )
    connect_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="longest time to connect to a service"
    )
    operation_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=10.0,
        description="longest time to wait for an answer, beyond the wait of a long poll",
    )
    max_connections: Annotated[int, Field(ge=2)] = Field(
        default=32, description="most connections to one service; more calls wait their turn"
    )
