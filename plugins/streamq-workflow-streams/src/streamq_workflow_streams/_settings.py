"""Defines the driver's settings, ``STREAMQ_WORKFLOW_STREAMS_...``.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from streamq.driver import DriverSettings

MOST_STREAM_BYTES = 1_835_008
"""All records have to fit into the input of the next run: Temporal takes at most 2 MiB."""


class WorkflowStreamsSettings(DriverSettings):
    """Settings, from ``STREAMQ_WORKFLOW_STREAMS_...`` or the table ``[workflow_streams]``."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_WORKFLOW_STREAMS_")
    toml_table = "workflow_streams"

    address: str = Field(default="127.0.0.1:7233", description="Temporal frontend, host:port")
    namespace: str = Field(default="default", description="Temporal namespace")
    task_queue: Annotated[str, Field(min_length=1)] = Field(
        default="streamq-host", description="task queue of the workers that run the host workflow"
    )
    id_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,32}$")] = Field(
        default="streamq-host", description="beginning of every workflow id"
    )
    api_key: SecretStr | None = Field(
        default=None, description="API key, as Temporal Cloud gives them; implies TLS"
    )
    tls: bool = Field(default=False, description="whether to connect by TLS")
    tls_server_ca: Path | None = Field(
        default=None, description="file with the certificates that the server is checked by"
    )
    tls_client_cert: Path | None = Field(
        default=None, description="file with our certificate, for mutual TLS"
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
        description="how often a reader looks for a stream that does not exist yet, or for records "
        "when the host takes no more long polls",
    )
    listing_delay_seconds: Annotated[float, Field(ge=0)] = Field(
        default=1.0,
        description="how long a listing waits first, because Temporal's visibility lags behind",
    )
    max_stream_bytes: Annotated[int, Field(ge=4096, le=MOST_STREAM_BYTES)] = Field(
        default=MOST_STREAM_BYTES,
        description="most that one stream may hold, records and 64 bytes for each of them",
    )

    @field_validator("tls_server_ca", "tls_client_cert", "tls_client_key")
    @classmethod
    def _file_is_readable(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("is not a file")
        return value
