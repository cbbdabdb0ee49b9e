"""Defines the settings of streams, Temporal and tokens: what every part of streamq needs.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from ._events import SYSTEM_TENANT
from ._setting_origins import PREFIX, credentials_of_temporal
from ._settings_base import SourcedSettings
from .driver_parts._temporal_target import DEFAULT_TEMPORAL_ADDRESS, TemporalTarget
from .records._wire import MAX_CHUNK_BYTES

LONGEST_SECONDS = 10 * 365 * 86_400.0
"""Longest time that a setting takes."""


class GeneralSettings(SourcedSettings):
    """Settings of streams, of Temporal and of tokens."""

    @classmethod
    def ambient_credentials(cls) -> Collection[str]:
        """Return Temporal's own variables that are sent to its server."""
        return [*credentials_of_temporal()]

    backend: str = Field(default="sqlite", description="which driver carries the streams")
    tenant: str = Field(
        default="default", description="isolation scope that every stream name belongs to"
    )
    ttl_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS)] = Field(
        default=86_400.0, description="how long a stream is kept after its last append"
    )
    sealed_ttl_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS)] = Field(
        default=21_600.0,
        description="how long a stream is kept after its end, if that is shorter",
    )
    max_chunk_bytes: Annotated[int, Field(gt=0, le=MAX_CHUNK_BYTES)] = Field(
        default=1_048_576, description="largest encoded chunk that send_chunk accepts"
    )
    buffer_bytes: Annotated[int, Field(gt=0)] = Field(
        default=4_194_304, description="unsent bytes a writer holds before send_chunk waits"
    )
    mode: Literal["realtime", "batch"] = Field(
        default="realtime",
        description="`realtime` sends chunks at once; `batch` holds them back until the activity "
        "has succeeded",
    )
    batch_bytes: Annotated[int, Field(gt=0)] = Field(
        default=67_108_864,
        description="most bytes a writer holds back in mode `batch`; each chunk counts 100 more",
    )
    data_converter: str | None = Field(
        default=None,
        description="`module:name` of the Temporal DataConverter with which the gateway, the "
        "command line and `open_reader` decode payloads and encrypted streams",
    )
    retry_seconds: Annotated[float, Field(ge=0, le=LONGEST_SECONDS)] = Field(
        default=30.0, description="how long an unreachable backend is retried before giving up"
    )
    operation_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS)] = Field(
        default=30.0,
        description="how long one call to the backend may take, beyond what it waits for",
    )
    idle_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS)] = Field(
        default=300.0, description="how long a reader waits for the next event before it raises"
    )
    cancel_seconds: Annotated[float, Field(ge=0.1, le=LONGEST_SECONDS)] = Field(
        default=1.0,
        description="how long a cancellation takes at most to reach an activity: the interval of "
        "its heartbeats, each of which Temporal Cloud bills",
    )
    max_waiting_activities: Annotated[int, Field(ge=0)] = Field(
        default=10_000,
        description="most activities of streamq that wait outside of the activity slots of one "
        "worker, at about 22 KiB each; a further one waits in its slot",
    )
    temporal_address: str = Field(
        default=DEFAULT_TEMPORAL_ADDRESS,
        description="Temporal frontend, host:port; if not given, that of Temporal's profile",
    )
    temporal_namespace: str = Field(
        default="default", description="Temporal namespace; if not given, that of the profile"
    )
    temporal_profile: str | None = Field(
        default=None,
        description="profile of Temporal's own configuration; by default `TEMPORAL_PROFILE`",
    )
    temporal_api_key: SecretStr | None = Field(
        default=None, description="API key of Temporal Cloud; implies TLS"
    )
    temporal_api_key_file: Path | None = Field(
        default=None, description="file with the API key, read again after it was replaced"
    )
    temporal_tls: bool | None = Field(
        default=None,
        description="whether to connect to Temporal by TLS; by default if a key or a file needs it",
    )
    temporal_tls_server_name: str | None = Field(
        default=None, description="name that the server's certificate has to carry"
    )
    temporal_tls_server_ca: Path | None = Field(
        default=None,
        description="file with the certificate authorities that the server is verified with",
    )
    temporal_tls_client_cert: Path | None = Field(
        default=None, description="file with the client certificate, for mutual TLS"
    )
    temporal_tls_client_key: Path | None = Field(
        default=None, description="file with its private key"
    )
    token_key: SecretStr | None = Field(
        default=None,
        description="key of the tokens that `streamq token` makes and the gateway accepts: a "
        "secret of at least 32 bytes, a PEM or a JSON Web Key",
    )
    token_key_file: Path | None = Field(
        default=None, description="file with that key, read again after it was replaced"
    )
    gateway_token: SecretStr | None = Field(
        default=None,
        description="token that `streamq tail https://...` sends to the gateway; `open_reader` "
        "takes its own by `token=`",
    )
    token_issuers: Path | None = Field(
        default=None,
        description="TOML file with other issuers whose tokens the gateway accepts",
    )
    quotas: Path | None = Field(
        default=None,
        description="TOML file with what each tenant and each holder of a token may take of a "
        "process: read by a gateway at its start and for each writer; no bounds without one",
    )

    @field_validator("backend", "mode", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("tenant")
    @classmethod
    def _is_not_reserved(cls, value: str) -> str:
        if value == SYSTEM_TENANT:
            raise ValueError("this tenant is reserved for streamq itself; choose another name")
        return value

    @field_validator("token_key_file", "token_issuers", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        if isinstance(value, str) and not value.strip():
            raise ValueError("it is empty, which would let everybody read; unset it if you mean so")
        return value

    @property
    def temporal_target(self) -> TemporalTarget:
        """Where Temporal is, as far as these settings state it."""
        given = self.model_fields_set
        return TemporalTarget(
            prefix=f"{PREFIX}TEMPORAL_",
            address=self.temporal_address if "temporal_address" in given else None,
            namespace=self.temporal_namespace if "temporal_namespace" in given else None,
            profile=self.temporal_profile,
            api_key=self.temporal_api_key,
            api_key_file=self.temporal_api_key_file,
            tls=self.temporal_tls,
            tls_server_name=self.temporal_tls_server_name,
            tls_server_ca=self.temporal_tls_server_ca,
            tls_client_cert=self.temporal_tls_client_cert,
            tls_client_key=self.temporal_tls_client_key,
        )

    @property
    def ttl(self) -> timedelta:
        """:attr:`ttl_seconds` as a duration."""
        return timedelta(seconds=self.ttl_seconds)

    @property
    def sealed_ttl(self) -> timedelta:
        """:attr:`sealed_ttl_seconds` as a duration, never longer than :attr:`ttl`."""
        return min(timedelta(seconds=self.sealed_ttl_seconds), self.ttl)
