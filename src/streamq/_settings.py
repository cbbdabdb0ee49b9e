"""Loads typed settings from environment variables, then ``.env``, then ``streamq.toml``.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    SettingsConfigDict,
)

from ._comma_lists import listed
from ._configuration_files import (
    CONFIG_FILE_VARIABLE,
    DEBUG_VARIABLE,
    TRUST_VARIABLE,
    read_config_file,
    read_dotenv,
)
from ._errors import ConfigurationError
from ._events import user_stream
from ._general_settings import LONGEST_SECONDS, GeneralSettings
from ._networks import networks_text
from ._setting_origins import (
    PREFIX,
    SettingOrigin,
    environment,
    holds_credentials,
    origins,
    refuse_unasked,
)
from ._settings_base import DriverSettings, SourcedSettings, did_you_mean
from ._web_address import web_address
from .driver_parts._credentials import is_secret_name, mask_credentials, seen_value

OFFICIAL_PLUGINS = ("kafka", "postgres", "redis", "s3sns", "sqs", "workflow_streams")
"""Backends that streamq itself provides as plugins, installed or not."""
_TABLES_OF_OTHERS = ("streamq", "tool", "settings", "core", "default")


class Settings(GeneralSettings):
    """Settings of streamq itself; each driver adds its own, with its own prefix.

    Create it with :func:`load_settings`, which also refuses mistyped variables.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    gateway_anonymous: str = Field(
        default="",
        description="what requests without a token may do: actions, separated by commas, such as "
        "`read,list,cancel`, or `nothing`. By default `read,list` where no tokens are accepted, "
        "else `nothing`; a token that is refused is never anonymous",
    )
    gateway_revocation_seconds: Annotated[float, Field(ge=1, le=LONGEST_SECONDS)] = Field(
        default=60.0,
        description="how long the gateway goes on accepting tokens while it cannot learn from the "
        "backend which ones were revoked",
    )
    gateway_ticket_key: SecretStr | None = Field(
        default=None,
        description="secret of at least 32 bytes, the same for all processes of a gateway, that "
        "lets it give tickets: `POST /ticket/NAME` for a token, `?ticket=` for the events",
    )
    gateway_trust_tenants: bool = Field(
        default=False,
        description="whether requests may name any tenant in their path (`/t/TENANT/...`) where no "
        "tokens are used, so that everybody who reaches the gateway is trusted with all of them",
    )
    gateway_cancel_tenants: str = Field(
        default="",
        description="tenants, separated by commas, whose workflows the gateway's Temporal "
        "namespace has, so that their requests may cancel any of them. By default "
        "`STREAMQ_TENANT` where requests can name no other tenant, else none",
    )
    gateway_host: str = Field(default="127.0.0.1", description="address that `streamq serve` binds")
    gateway_port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=8330, description="port that `streamq serve` binds; 0 picks a free one"
    )
    gateway_max_connections: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="most open event streams of the gateway; 0 for as many as the limit of file "
        "descriptors leaves room for, at most 10,000",
    )
    gateway_trusted_proxies: str = Field(
        default="",
        description="addresses or networks, separated by commas, of the proxies whose "
        "`X-Forwarded-For` names the client; one client gets at most half of each bound",
    )
    gateway_hosts: str = Field(
        default="",
        description="names, separated by commas, by which browsers reach the gateway, besides "
        "IP addresses and names without a dot; `*.example.org` is every name below, `*` any",
    )
    gateway_origins: str = Field(
        default="",
        description="origins, separated by commas, of other sites whose pages may read streams "
        "(CORS), for example `https://chat.example.org`",
    )
    gateway_temporal_ui: Annotated[str, AfterValidator(web_address)] = Field(
        default="",
        description="address of Temporal's UI, `http://localhost:8233` say, for links of the page",
    )
    gateway_data_converters: str = Field(
        default="",
        description="data converters of tenants, `tenant=module:name`, separated by commas; the "
        "streams of other tenants are decoded by `STREAMQ_DATA_CONVERTER`",
    )
    a2a_signing_key: SecretStr | None = Field(
        default=None,
        description="private key, a PEM or a JSON Web Key, that an A2A server signs the cards of "
        "its agent with",
    )
    a2a_signing_key_file: Path | None = Field(
        default=None, description="file with that key, or with several, read at the start"
    )
    a2a_push_networks: Annotated[str, AfterValidator(networks_text)] = Field(
        default="",
        description="networks or addresses, separated by commas, beside the public internet, in "
        "which receivers of A2A push notifications may be, `10.1.0.0/16` say",
    )
    a2a_push_receivers: str = Field(
        default="",
        description="names of hosts, separated by commas, to which A2A push notifications may be "
        "sent; `*.example.org` is every name below. By default any",
    )
    a2a_push_http: bool = Field(
        default=False,
        description="whether A2A push notifications may be sent by plain `http`, so that everybody "
        "on the way reads them and their credentials",
    )
    a2a_push_key: SecretStr | None = Field(
        default=None,
        description="key with which workers sign A2A push notifications: a secret of at least 32 "
        "bytes, a private key in PEM or a JSON Web Key; unsigned without one",
    )
    a2a_push_secret: SecretStr | None = Field(
        default=None,
        description="secret of at least 32 bytes, the same for replicas and workers, that encrypts "
        "tokens and credentials of A2A push notifications before Temporal keeps them",
    )
    a2a_push_timeout_seconds: Annotated[float, Field(gt=0, le=300)] = Field(
        default=15.0, description="how long a receiver of A2A push notifications may take for one"
    )
    a2a_push_retry_seconds: Annotated[float, Field(ge=0, le=LONGEST_SECONDS)] = Field(
        default=14_400.0,
        description="how long one A2A push notification is tried before its receiver is given up; "
        "the events of a task that has ended are kept for `STREAMQ_SEALED_TTL_SECONDS`",
    )

    @field_validator("gateway_cancel_tenants")
    @classmethod
    def _are_tenants(cls, value: str) -> str:
        for name in listed(value):
            user_stream(name, "any")  # raises if it is no tenant
        return value


SettingsT = TypeVar("SettingsT", bound=SourcedSettings)


def build(settings_type: type[SettingsT], /, **overrides: object) -> SettingsT:
    """Create settings from every source.

    Raises:
        ConfigurationError: A value is missing or invalid; the message names the variable, or the
            file and its key, and the reason, and never the value of a secret. Or a file of the
            working directory names code, or a server for credentials that are not its own, and
            nothing asked for it.
    """
    given = origins_of(settings_type)
    given |= {name: SettingOrigin(f"{name}=", value) for name, value in overrides.items()}
    fields = settings_type.model_fields
    secrets = [name for name in fields if is_secret(settings_type, name) or holds_credentials(name)]
    refuse_unasked(given, secrets, settings_type.ambient_credentials())
    try:
        return settings_type(**overrides)
    except ValidationError as exc:
        problems = []
        for error in exc.errors(include_url=False, include_context=False):
            reason = mask_credentials(error["msg"].removeprefix("Value error, "))
            if not error["loc"]:
                # The error concerns several fields: its text names them, its input is all of them.
                problems.append(reason)
                continue
            field = str(error["loc"][0])
            is_hidden = is_secret(settings_type, field)
            seen = "" if is_hidden else f" (value seen: {seen_value(error['input'])})"
            place = given.get(field)
            named = variable_of(settings_type, field)
            if place is not None and place.file is not None:
                named = str(place)
            problems.append(f"{named}: {reason}{seen}")
        raise ConfigurationError("invalid setting: " + "; ".join(problems)) from None
    except ValueError as exc:  # a value of several parts that is no JSON
        raise ConfigurationError(f"invalid setting: {mask_credentials(str(exc))}") from None


def origins_of(settings_type: type[BaseSettings]) -> dict[str, SettingOrigin]:
    """Return what gives each setting of a class that does not have its default.

    Raises:
        ConfigurationError: A file cannot be read.
    """
    prefix = settings_type.model_config.get("env_prefix", "")
    table = str(getattr(settings_type, "toml_table", ""))
    return origins(prefix, table, settings_type.model_fields)


def variable_of(settings_type: type[BaseSettings], field: str) -> str:
    """Return the environment variable of a field."""
    return f"{settings_type.model_config.get('env_prefix', '')}{field}".upper()


def is_secret(settings_type: type[BaseSettings], field: str) -> bool:
    """Whether the value of a field is secret: by its type, or by its name."""
    annotation = getattr(settings_type.model_fields.get(field), "annotation", "")
    return "Secret" in str(annotation) or is_secret_name(field)


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
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    known |= {CONFIG_FILE_VARIABLE, TRUST_VARIABLE, DEBUG_VARIABLE}
    own_prefix = driver_settings.model_config.get("env_prefix", "").upper()
    known |= {own_prefix + name.upper() for name in driver_settings.model_fields}
    tables = {*drivers, *OFFICIAL_PLUGINS}
    others = tuple(f"{PREFIX}{name.upper()}_" for name in tables - {settings.backend})
    dotenv, document = read_dotenv(), read_config_file()
    for key, value in document.values.items():
        if isinstance(value, dict) and key not in tables:
            hint = did_you_mean(key, tables)
            if key in _TABLES_OF_OTHERS:
                hint = (
                    "; the settings of streamq itself stand at the top of the file, before any "
                    "table, and those of a backend in the table of its name"
                )
            raise ConfigurationError(
                f"table [{key}] in {document.path} belongs to no backend{hint}"
            )
    places = dict.fromkeys(dotenv.values, f" in {dotenv.path}") | dict.fromkeys(environment(), "")
    for variable, place in sorted(places.items()):
        name = variable.upper()
        if name.startswith(PREFIX) and name not in known and not name.startswith(others):
            raise ConfigurationError(
                f"unknown variable {variable}{place}{did_you_mean(name, known)} "
                "(`streamq config` lists what is read)"
            )
