"""The driver's settings.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from streamq.driver import CredentialCall, CredentialSource, DriverSettings

CREDENTIALS = frozenset({"username", "password"})
"""Names of what a source of credentials may return."""

_REFUSED_OPTIONS = frozenset({"replication", "client_encoding", "fallback_application_name"})
_SCHEMA_BYTES = 63
_LONGEST_LOCK_SECONDS = 1.0


class PostgresSettings(DriverSettings):
    """Settings of the driver, from ``STREAMQ_POSTGRES_...`` or the table ``[postgres]``."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_POSTGRES_")
    toml_table = "postgres"

    @classmethod
    def ambient_credentials(cls) -> Collection[str]:
        """Return the variables from which libpq takes a password by itself."""
        return [name for name in ("PGPASSWORD", "PGPASSFILE") if os.environ.get(name)]

    url: SecretStr = Field(
        default=SecretStr("postgresql://127.0.0.1:5432/postgres"),
        description="server as postgresql://[user:password@]host:port/database; several as "
        "host1:port1,host2:port2; options of libpq, such as `?sslmode=verify-full`, are taken",
    )
    password_file: Path | None = Field(
        default=None,
        description="file with the password, read anew for each connection; the user's name is "
        "that of the URL",
    )
    credentials: CredentialCall | str | None = Field(
        default=None,
        description="function that returns `username` and `password`, called for each connection: "
        "an entry point in the group `streamq.credentials`, or `module:function`",
    )
    schema_name: str = Field(
        default="streamq",
        description="schema of the tables, to share a database; it is created if it is missing",
    )
    synchronous_commit: Literal["server", "off", "local", "remote_write", "on", "remote_apply"] = (
        Field(
            default="server",
            description="when the server acknowledges an append, in its own words; `server` for "
            "what it is set to",
        )
    )
    pooler: bool | None = Field(
        default=None,
        description="whether a pooler in transaction mode is in between, so that readers poll; by "
        "default it is found out. `false` if the pooler is in session mode",
    )
    connect_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="longest time to connect to a host and to log in"
    )
    operation_timeout_seconds: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="longest time to wait for an answer"
    )
    lookup_seconds: Annotated[float, Field(ge=0.1)] = Field(
        default=15.0,
        description="how often it is checked that the address still leads to the same server",
    )
    poll_seconds: Annotated[float, Field(ge=0.01)] = Field(
        default=1.0,
        description="longest time until a record is found whose notification was lost",
    )
    poll_without_listen_seconds: Annotated[float, Field(ge=0.001)] = Field(
        default=0.05,
        description="pause between two polls where notifications do not arrive, such as behind a "
        "pooler in transaction mode",
    )
    sweep_seconds: Annotated[float, Field(ge=0.05)] = Field(
        default=30.0,
        description="how often a process that writes removes some of what has expired",
    )
    tail_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=262_144,
        description="newest data kept in memory for each stream that is being followed",
    )

    @property
    def lock_ms(self) -> int:
        """Longest time to wait for another session that has locked a stream."""
        return int(1_000 * min(_LONGEST_LOCK_SECONDS, self.operation_timeout_seconds / 4))

    def parameters(self) -> dict[str, str]:
        """Return the URL as parameters of libpq."""
        return parse_url(self.url)

    def credential_source(self) -> CredentialSource:
        """Return what gives credentials to each connection."""
        given = self.parameters()
        fixed = {
            name: given[key]
            for name, key in (("username", "user"), ("password", "password"))
            if given.get(key)
        }
        files = {} if self.password_file is None else {"password": self.password_file}
        return CredentialSource(
            "STREAMQ_POSTGRES_", CREDENTIALS, call=self.credentials, files=files, fixed=fixed
        )

    @field_validator("url")
    @classmethod
    def _url_is_usable(cls, value: SecretStr) -> SecretStr:
        parse_url(value)
        return value

    @field_validator("schema_name")
    @classmethod
    def _schema_is_a_name(cls, value: str) -> str:
        if not value.isprintable() or not 0 < len(value.encode()) <= _SCHEMA_BYTES:
            raise ValueError(f"must be printable, and 1 to {_SCHEMA_BYTES} bytes")
        if value.startswith("pg_"):
            raise ValueError("must not start with pg_, which PostgreSQL keeps for itself")
        return value


def parse_url(url: SecretStr) -> dict[str, str]:
    """Return the parameters of libpq in a URL, or in its other form ``host=... dbname=...``.

    Raises:
        ValueError: It cannot be used. The message repeats nothing of it but names of options.
    """
    found: dict[str, str] | None = None
    try:
        given = conninfo_to_dict(url.get_secret_value().strip())
        found = {name: str(value) for name, value in given.items() if value is not None}
    except (ProgrammingError, UnicodeError, ValueError):
        pass  # its text repeats parts of the URL
    if not found:
        raise ValueError(
            "must be postgresql://[user:password@]host:port/database, with options that libpq "
            "knows, and special characters in user name and password percent-encoded"
        )
    if refused := sorted(found.keys() & _REFUSED_OPTIONS):
        raise ValueError(f"has options that are not supported: {', '.join(refused)}")
    return found
