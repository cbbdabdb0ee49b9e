"""Defines the settings that all AWS backends have.

Design: docs/design/aws.md.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from streamq.driver import CredentialCall, DriverSettings


class AwsSettings(DriverSettings):
    """Base of the settings of AWS backends.

    Credentials come from the sources that every AWS tool uses (environment, profile, container or
    instance role, web identity, ``role_arn`` of a profile) unless a function gives them.
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
    credentials: CredentialCall | str | None = Field(
        default=None,
        description="function that returns `access_key_id` and `secret_access_key`, and may return "
        "`session_token` and `expires_at` (ISO 8601); it is called again after a refusal and "
        "before they expire: an entry point in the group `streamq.credentials`, or "
        "`module:function`; by default the sources of every AWS tool",
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
