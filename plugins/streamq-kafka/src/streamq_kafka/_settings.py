"""Declares and checks the settings of the driver.

Design: docs/design/kafka.md.
"""

from __future__ import annotations

from typing import Annotated, Literal

from aiokafka import codec
from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from streamq import load_settings
from streamq.driver import ConfigurationError, CredentialCall, DriverSettings

from ._naming import BACKEND, DIRECTORY_SUFFIX

TENANT = "{tenant}"
_TOPIC_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_LONGEST_TOPIC = 249 - len(DIRECTORY_SUFFIX)
_LONGEST_TENANT = 64

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]


class KafkaSettings(DriverSettings):
    """Settings of the Kafka driver, from ``STREAMQ_KAFKA_...`` or the table ``[kafka]``."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_KAFKA_")
    toml_table = "kafka"

    bootstrap_servers: str = Field(
        default="127.0.0.1:9092",
        description="some brokers to connect to first, as host:port,host:port",
    )
    topic: str = Field(
        default="streamq",
        description="topic of the records, may contain {tenant}; the name of its directory is this "
        "name and `.directory`",
    )
    security_protocol: Protocol = Field(
        default="PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"
    )
    sasl_mechanism: Mechanism = Field(
        default="PLAIN", description="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"
    )
    sasl_username: str | None = Field(
        default=None, description="user name, or API key, for PLAIN and SCRAM"
    )
    sasl_password: SecretStr | None = Field(
        default=None, description="password, or API secret, for PLAIN and SCRAM"
    )
    sasl_password_file: str | None = Field(
        default=None,
        description="file that contains the password; it is read for each connection",
    )
    sasl_credentials: CredentialCall | str | None = Field(
        default=None,
        description="function that returns `username` and `password`, or `token`, and is called "
        "for each connection: an entry point in the group `streamq.credentials`, or "
        "`module:function`",
    )
    sasl_token_provider: str | None = Field(
        default=None,
        description="`module:function` that returns a token for OAUTHBEARER; may be a coroutine "
        "function",
    )
    tls_ca_file: str | None = Field(
        default=None, description="certificates to trust, PEM; by default those of the system"
    )
    tls_cert_file: str | None = Field(
        default=None, description="our certificate for mutual TLS, PEM"
    )
    tls_key_file: str | None = Field(
        default=None, description="its private key, PEM, if that is in another file"
    )
    tls_key_password: SecretStr | None = Field(
        default=None, description="password of the private key, if it has one"
    )
    idempotent: bool = Field(
        default=True,
        description="brokers recognise batches that aiokafka sends again; off only for brokers "
        "without idempotent producers, such as the embedded one",
    )
    compression: Compression = Field(
        default="none",
        description="none, gzip, snappy, lz4 or zstd; the last three need the extra `compression`, "
        "also in processes that only read",
    )
    linger_ms: Annotated[float, Field(ge=0, le=10_000)] = Field(
        default=0.0, description="how long a record waits for others to be sent with it"
    )
    batch_bytes: Annotated[int, Field(ge=4_096, le=16 * 2**20)] = Field(
        default=262_144,
        description="largest batch of records of one partition; at most what the topic takes",
    )
    fetch_wait_ms: Annotated[int, Field(ge=1, le=5_000)] = Field(
        default=500, description="how long a broker holds a fetch while there is no new record"
    )
    client_id: str = Field(default="streamq", description="name in the logs of the brokers")
    connect_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="longest time until a broker has answered"
    )
    operation_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="longest time to wait for an answer"
    )
    tail_bytes: Annotated[int, Field(ge=1_024)] = Field(
        default=262_144,
        description="newest data kept in memory for each stream that is being followed",
    )
    cache_bytes: Annotated[int, Field(ge=1_048_576)] = Field(
        default=67_108_864,
        description="most data kept in memory for all streams that are followed; readers of older "
        "data have as much again",
    )
    partitions: Annotated[int, Field(ge=1, le=10_000)] = Field(
        default=12, description="partitions of topics that `streamq doctor --create` creates"
    )
    replication_factor: Annotated[int, Field(ge=1, le=32)] = Field(
        default=3, description="their replicas, at most as many as there are brokers"
    )
    retention_hours: Annotated[float, Field(gt=0)] = Field(
        default=72.0,
        description="how long they keep records; longer than any stream is written to and kept",
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _servers_are_addresses(cls, value: str) -> str:
        servers = [part.strip() for part in value.split(",") if part.strip()]
        if not servers:
            raise ValueError("must name at least one broker as host:port")
        for server in servers:
            if "@" in server:
                raise ValueError(
                    "takes no credentials; set STREAMQ_KAFKA_SASL_USERNAME and "
                    "STREAMQ_KAFKA_SASL_PASSWORD"
                )
            host, _, port = server.rpartition(":")
            if not host or not port.isdigit() or not 0 < int(port) < 65_536 or "/" in server:
                raise ValueError(f"{server!r} is not host:port")
        return ",".join(servers)

    @field_validator("topic")
    @classmethod
    def _topic_is_a_name(cls, value: str) -> str:
        plain = value.replace(TENANT, "t")
        if not plain or not _TOPIC_CHARACTERS.issuperset(plain) or plain in (".", ".."):
            raise ValueError("must be letters, digits, '.', '_' or '-', and at most one '{tenant}'")
        longest = len(value.replace(TENANT, "t" * _LONGEST_TENANT))
        if value.count(TENANT) > 1 or longest > _LONGEST_TOPIC:
            raise ValueError(
                f"must have one '{TENANT}' and {_LONGEST_TOPIC} characters at most, of which a "
                f"tenant has up to {_LONGEST_TENANT}"
            )
        return value

    @field_validator("compression")
    @classmethod
    def _compression_is_installed(cls, value: Compression) -> Compression:
        if value != "none" and not getattr(codec, f"has_{value}")():
            raise ValueError(
                f"{value} needs a library: pip install 'streamq-kafka[compression]', here and in "
                "every process that reads; gzip needs none"
            )
        return value

    @model_validator(mode="after")
    def _fetches_end_before_the_timeout(self) -> KafkaSettings:
        if self.fetch_wait_ms >= self.operation_timeout_seconds * 1000:
            raise ValueError(
                f"STREAMQ_KAFKA_FETCH_WAIT_MS={self.fetch_wait_ms} has to be shorter than "
                "STREAMQ_KAFKA_OPERATION_TIMEOUT_SECONDS"
            )
        return self

    @model_validator(mode="after")
    def _credentials_are_complete(self) -> KafkaSettings:
        if not self.security_protocol.startswith("SASL_"):
            return self
        if self.sasl_mechanism == "OAUTHBEARER":
            if not self.sasl_token_provider and self.sasl_credentials is None:
                raise ValueError(
                    "OAUTHBEARER needs STREAMQ_KAFKA_SASL_TOKEN_PROVIDER or "
                    "STREAMQ_KAFKA_SASL_CREDENTIALS"
                )
        elif self.sasl_credentials is None and (
            self.sasl_username is None
            or (self.sasl_password is None and self.sasl_password_file is None)
        ):
            raise ValueError(
                f"{self.sasl_mechanism} needs STREAMQ_KAFKA_SASL_USERNAME and "
                "STREAMQ_KAFKA_SASL_PASSWORD, or STREAMQ_KAFKA_SASL_PASSWORD_FILE, or "
                "STREAMQ_KAFKA_SASL_CREDENTIALS"
            )
        return self

    @property
    def is_per_tenant(self) -> bool:
        """Whether every tenant has its own topic."""
        return TENANT in self.topic

    def topic_of(self, tenant: str) -> str:
        """Return the topic of a tenant's records.

        Raises:
            ConfigurationError: It would be the directory of another topic.
        """
        name = self.topic.replace(TENANT, tenant)
        if self.is_per_tenant and name.endswith(DIRECTORY_SUFFIX):
            raise ConfigurationError(
                f"tenant {tenant!r} cannot have topic {name!r}, which is the directory of another "
                f"topic; add a suffix after '{TENANT}' in STREAMQ_KAFKA_TOPIC, or rename the "
                "tenant",
                backend=BACKEND,
            )
        return name


def data_topic(settings: KafkaSettings) -> str:
    """Return the topic of the records of the configured tenant."""
    return settings.topic_of(load_settings().tenant) if settings.is_per_tenant else settings.topic
