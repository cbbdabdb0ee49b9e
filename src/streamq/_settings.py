"""Loads typed settings from environment variables, then ``.env``, then ``streamq.toml``.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from ._errors import ConfigurationError
from .driver_parts._credentials import mask_credentials
from .driver_parts._temporal_target import DEFAULT_TEMPORAL_ADDRESS, TemporalTarget
from .records._wire import MAX_CHUNK_BYTES

PREFIX = "STREAMQ_"
CONFIG_FILE_VARIABLE = "STREAMQ_CONFIG_FILE"
_DOTENV = ".env"
_LONGEST_SECONDS = 10 * 365 * 86_400.0
OFFICIAL_PLUGINS = ("kafka", "redis", "s3sns", "sqs", "workflow_streams")
"""Backends that streamq itself provides as plugins, installed or not."""


class _TomlTable(PydanticBaseSettingsSource):
    """Feeds one table of ``streamq.toml`` into a settings class."""

    def __init__(self, settings_cls: type[BaseSettings], table: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._table = table

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._table.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._table)


class _Base(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_file=_DOTENV, env_file_encoding="utf-8"
    )

    toml_table: ClassVar[str] = ""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path, document = read_config_file()
        table = (
            document.get(cls.toml_table, {})
            if cls.toml_table
            else {key: value for key, value in document.items() if not isinstance(value, dict)}
        )
        for key in table:
            if key not in cls.model_fields:
                where = f"[{cls.toml_table}] in {path}" if cls.toml_table else str(path)
                raise ConfigurationError(
                    f"unknown setting {key!r} in {where}{did_you_mean(key, cls.model_fields)}"
                )
        return (
            init_settings,
            env_settings,
            dotenv_settings,
            _TomlTable(settings_cls, table),
            file_secret_settings,
        )


class DriverSettings(_Base):
    """Base of a driver's settings.

    A subclass sets ``model_config = SettingsConfigDict(env_prefix="STREAMQ_<NAME>_")`` and
    ``toml_table = "<name>"``, describes every field, and keeps secrets in ``SecretStr``.
    """


class Settings(_Base):
    """Settings of streamq itself; each driver adds its own, with its own prefix.

    Create it with :func:`load_settings`, which also refuses mistyped variables.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    backend: str = Field(default="sqlite", description="which driver carries the streams")
    tenant: str = Field(
        default="default", description="isolation scope that every stream name belongs to"
    )
    ttl_seconds: Annotated[float, Field(gt=0, le=_LONGEST_SECONDS)] = Field(
        default=86_400.0, description="how long a stream is kept after its last append"
    )
    sealed_ttl_seconds: Annotated[float, Field(gt=0, le=_LONGEST_SECONDS)] = Field(
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
        description="`module:name` of the Temporal DataConverter with which the gateway, the command "
        "line and `open_reader` decode payloads and encrypted streams",
    )
    retry_seconds: Annotated[float, Field(ge=0, le=_LONGEST_SECONDS)] = Field(
        default=30.0, description="how long an unreachable backend is retried before giving up"
    )
    operation_seconds: Annotated[float, Field(gt=0, le=_LONGEST_SECONDS)] = Field(
        default=30.0,
        description="how long one call to the backend may take, beyond what it waits for",
    )
    idle_seconds: Annotated[float, Field(gt=0, le=_LONGEST_SECONDS)] = Field(
        default=300.0, description="how long a reader waits for the next event before it raises"
    )
    cancel_seconds: Annotated[float, Field(ge=0.1, le=_LONGEST_SECONDS)] = Field(
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
    gateway_host: str = Field(default="127.0.0.1", description="address that `streamq serve` binds")
    gateway_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=8330, description="port that `streamq serve` binds; 0 picks a free one"
    )
    gateway_hosts: str = Field(
        default="",
        description="names, separated by commas, by which browsers reach the gateway, besides "
        "localhost and IP addresses; `*.example.org` is every name below, `*` any",
    )
    gateway_origins: str = Field(
        default="",
        description="origins, separated by commas, of other sites whose pages may read streams "
        "(CORS), for example `https://chat.example.org`",
    )

    @field_validator("backend", "mode", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

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


def read_config_file() -> tuple[Path, dict[str, Any]]:
    """Read ``streamq.toml`` from the working directory, or the file that STREAMQ_CONFIG_FILE names.

    Returns:
        The path and the document, empty if the default file does not exist.

    Raises:
        ConfigurationError: The named file does not exist, or a file is not valid TOML.
    """
    named = os.environ.get(CONFIG_FILE_VARIABLE)
    path = Path(named or "streamq.toml")
    try:
        return path, tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if named:
            raise ConfigurationError(
                f"{CONFIG_FILE_VARIABLE} names {named!r}, which does not exist"
            ) from None
        return path, {}
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"cannot read {path}: {exc}") from exc


SettingsT = TypeVar("SettingsT", bound=_Base)


def build(settings_type: type[SettingsT], /, **overrides: object) -> SettingsT:
    """Create settings from every source.

    Raises:
        ConfigurationError: A value is missing or invalid; the message names the variable and the
            reason, and never the value of a secret.
    """
    try:
        return settings_type(**overrides)
    except ValidationError as exc:
        prefix = settings_type.model_config.get("env_prefix", PREFIX)
        problems = []
        for error in exc.errors(include_url=False, include_context=False):
            reason = error["msg"].removeprefix("Value error, ")
            if not error["loc"]:
                # The error concerns several fields: its text names them, its input is all of them.
                problems.append(reason)
                continue
            field = str(error["loc"][0])
            annotation = str(getattr(settings_type.model_fields.get(field), "annotation", ""))
            value = mask_credentials(repr(error["input"]))
            seen = "" if "Secret" in annotation else f" (value seen: {value})"
            problems.append(f"{prefix}{field.upper()}: {reason}{seen}")
        raise ConfigurationError("invalid setting: " + "; ".join(problems)) from None


def load_settings(**overrides: object) -> Settings:
    """Return the settings in effect.

    Args:
        **overrides: Field values that take precedence over every source.

    Raises:
        ConfigurationError: A value is invalid, or the configuration file is.
    """
    return build(Settings, **overrides)


def check_variables(
    settings: Settings, driver_settings: type[DriverSettings], drivers: Iterable[str]
) -> None:
    """Refuse ``STREAMQ_`` variables and tables that nothing reads, so that no typo is ignored.

    Variables of drivers that are not selected are ignored; those of the selected one must be fields
    of its settings.

    Args:
        settings: The core settings in effect.
        driver_settings: Settings class of the selected driver.
        drivers: Names of all installed drivers.

    Raises:
        ConfigurationError: A variable is unknown; names it and the closest known one.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {CONFIG_FILE_VARIABLE}
    own_prefix = driver_settings.model_config.get("env_prefix", "").upper()
    known |= {own_prefix + name.upper() for name in driver_settings.model_fields}
    others = tuple(
        f"{PREFIX}{name.upper()}_" for name in {*drivers, *OFFICIAL_PLUGINS} - {settings.backend}
    )
    path, document = read_config_file()
    tables = {*drivers, *OFFICIAL_PLUGINS}
    for key, value in document.items():
        if isinstance(value, dict) and key not in tables:
            raise ConfigurationError(
                f"table [{key}] in {path} belongs to no backend{did_you_mean(key, tables)}"
            )
    for variable in sorted({*os.environ, *dotenv_values(_DOTENV)}):
        name = variable.upper()
        if name.startswith(PREFIX) and name not in known and not name.startswith(others):
            raise ConfigurationError(
                f"unknown variable {variable}{did_you_mean(name, known)} "
                "(`streamq config` lists what is read)"
            )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
