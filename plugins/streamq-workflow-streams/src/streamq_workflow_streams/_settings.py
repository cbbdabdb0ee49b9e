"""Defines the driver's settings, ``STREAMQ_WORKFLOW_STREAMS_...``.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from streamq import Settings
from streamq.driver import DriverSettings, TemporalTarget

MOST_STREAM_BYTES = 1_835_008
"""All records have to fit into the input of the next run, which is at most 2 MiB."""


class WorkflowStreamsSettings(DriverSettings):
    """Settings, from ``STREAMQ_WORKFLOW_STREAMS_...`` or the table ``[workflow_streams]``."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_WORKFLOW_STREAMS_")
    toml_table = "workflow_streams"

    @classmethod
    def ambient_credentials(cls) -> Collection[str]:
        """Return Temporal's own variables that are sent to its server."""
        return Settings.ambient_credentials()

    address: str = Field(
        default="127.0.0.1:7233",
        description="Temporal frontend, host:port; if not given, that of Temporal's profile",
    )
    namespace: str = Field(
        default="default", description="Temporal namespace; if not given, that of the profile"
    )
    profile: str | None = Field(
        default=None,
        description="profile of Temporal's own configuration; by default `TEMPORAL_PROFILE`",
    )
    task_queue: Annotated[str, Field(min_length=1)] = Field(
        default="streamq-host", description="task queue of the workers that run the host workflow"
    )
    id_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")] = Field(
        default="streamq-host", description="beginning of every workflow id"
    )
    api_key: SecretStr | None = Field(
        default=None, description="API key of Temporal Cloud; implies TLS"
    )
    api_key_file: Path | None = Field(
        default=None,
        description="file with the API key, read again when the server refuses it",
    )
    tls: bool | None = Field(
        default=None,
        description="whether to connect by TLS; by default if a key or a file needs it",
    )
    tls_server_name: str | None = Field(
        default=None, description="name that the server's certificate has to carry"
    )
    tls_server_ca: Path | None = Field(
        default=None,
        description="file with the certificate authorities that the server is verified with",
    )
    tls_client_cert: Path | None = Field(
        default=None, description="file with the client certificate, for mutual TLS"
    )
    tls_client_key: Path | None = Field(default=None, description="file with its private key")
    connect_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="longest time to connect"
    )
    operation_timeout_seconds: Annotated[float, Field(gt=0, le=15)] = Field(
        default=10.0,
        description="longest time to wait for an answer, beyond a blocking read's own wait",
    )
    absent_poll_seconds: Annotated[float, Field(ge=0.05)] = Field(
        default=0.5,
        description="how often a reader checks for a stream that does not exist yet, or for "
        "records if the host takes no more long polls",
    )
    listing_delay_seconds: Annotated[float, Field(ge=0)] = Field(
        default=1.0,
        description="how long a listing waits first, because Temporal's visibility lags behind",
    )
    max_stream_bytes: Annotated[int, Field(ge=4096, le=MOST_STREAM_BYTES)] = Field(
        default=MOST_STREAM_BYTES,
        description="most that one stream may hold, counting 64 bytes more for each record",
    )

    @property
    def target(self) -> TemporalTarget:
        """Where Temporal is, as far as these settings state it."""
        given = self.model_fields_set
        return TemporalTarget(
            prefix="STREAMQ_WORKFLOW_STREAMS_",
            address=self.address if "address" in given else None,
            namespace=self.namespace if "namespace" in given else None,
            profile=self.profile,
            api_key=self.api_key,
            api_key_file=self.api_key_file,
            tls=self.tls,
            tls_server_name=self.tls_server_name,
            tls_server_ca=self.tls_server_ca,
            tls_client_cert=self.tls_client_cert,
            tls_client_key=self.tls_client_key,
        )
