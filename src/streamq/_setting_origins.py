"""Finds which variable or file gives each setting, and refuses what no directory may give.

A directory may be anybody's: a checkout, a download, a shared disk. Its ``.env`` and
``streamq.toml`` give settings, but name no code, and no server for credentials that come from
elsewhere, unless the environment asks for them.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._configuration_files import (
    CONFIG_FILE_VARIABLE,
    TRUST_VARIABLE,
    ConfigurationFile,
    read_config_file,
    read_dotenv,
)
from ._errors import ConfigurationError

PREFIX = "STREAMQ_"

# Parts of names of settings: what names code; what decides where, and how safely, credentials go;
# what names a file whose content is sent.
_CODE = re.compile(
    r"(?:^|_)(?:converter|provider|credentials|codec|module|plugin|factory|hook|callback|class)$"
)
_SERVER = re.compile(
    r"(?:^|_)(?:urls?|uri|servers?|address|addresses|hosts?|endpoints?|brokers?|dsn|proxy|port"
    r"|tls|ssl|security|mechanism)(?:_|$)"
)
_SENT_FILE = re.compile(r"(?:password|token|secret|username|api_key)_file$")
_LISTENING = "gateway_"  # settings of what this process listens on
_WIDENING = ("a2a_push_networks", "a2a_push_http")  # what clients may have this process reach

_KEYS_OF_TOKENS = ("token_key", "token_key_file", "token_issuers")
_KEYS_OF_READERS = (*_KEYS_OF_TOKENS, "gateway_ticket_key")
_SENT_TO_NOBODY = (*_KEYS_OF_READERS, "a2a_push_key", "a2a_push_secret")
_PERMITTING = (*_KEYS_OF_READERS, "gateway_anonymous", "gateway_cancel_tenants")

_LINK = re.compile(r"STREAMQ(?:_[A-Z0-9_]+)?_(?P<kind>SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?)")
_DOCKER_LINK = re.compile(
    r"STREAMQ(?:_[A-Z0-9_]+)?_PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?"
)
_URL_OF_LINK = re.compile(r"(?:tcp|udp|sctp)://\S+")


@dataclass(frozen=True, slots=True)
class SettingOrigin:
    """Place that gives a setting.

    Attributes:
        key: Name of the setting there: a variable, or a key of TOML.
        value: The value as it stands there.
        file: The file; ``None`` for the environment.
        table: Table of the file; empty for its top, and outside of TOML.
    """

    key: str
    value: Any
    file: ConfigurationFile | None = None
    table: str = ""

    def __str__(self) -> str:
        """Return the place as a message names it."""
        if self.file is None:
            return self.key
        table = f"table [{self.table}] of " if self.table else ""
        return f"{self.key} in {table}{self.file.path}"


def origins(prefix: str, table: str, names: Collection[str]) -> dict[str, SettingOrigin]:
    """Return what gives each setting of a class; nothing for settings that have their default.

    Args:
        prefix: Prefix of its variables.
        table: Its table of ``streamq.toml``; empty for the top of the file.
        names: Names of its settings.

    Raises:
        ConfigurationError: A file cannot be read, or has a key that is no setting.
    """
    dotenv, document = read_dotenv(), read_config_file()
    found = {
        name: SettingOrigin(name, value, document, table)
        for name, value in toml_table(document, table).items()
        if name in names
    }
    variables = {(prefix + name).upper(): name for name in names}
    for file, given in ((dotenv, dotenv.values), (None, environment())):
        for variable, value in given.items():
            name = variables.get(variable.upper())
            if name is not None:
                found[name] = SettingOrigin(variable, value, file)
    return found


def toml_table(document: ConfigurationFile, table: str) -> dict[str, Any]:
    """Return the keys of a table, or those at the top of the file.

    Raises:
        ConfigurationError: The table is a value.
    """
    if not table:
        return {key: value for key, value in document.values.items() if not isinstance(value, dict)}
    values = document.values.get(table, {})
    if not isinstance(values, dict):
        raise ConfigurationError(
            f"{table} in {document.path} is a value; make it a table: [{table}]"
        )
    return values


def environment() -> dict[str, str]:
    """Return the variables of the process without the links that Kubernetes and Docker set."""
    return {name: value for name, value in os.environ.items() if not is_service_link(name, value)}


def service_links() -> list[str]:
    """Return the names of the variables that are links to services, and no settings."""
    return sorted(name for name, value in os.environ.items() if is_service_link(name, value))


def is_service_link(name: str, value: str) -> bool:
    """Whether a variable is what Kubernetes or Docker set for a service called ``streamq-...``.

    Its name and its value have the form of such a link. ``STREAMQ_GATEWAY_PORT=8330`` is a setting,
    ``STREAMQ_GATEWAY_PORT=tcp://10.0.0.1:80`` is a link.
    """
    if (link := _LINK.fullmatch(name)) is not None:
        return _is_host(value) if link["kind"] == "SERVICE_HOST" else value.isdecimal()
    if _DOCKER_LINK.fullmatch(name) is None:
        return False
    if name.endswith("_PROTO"):
        return value in ("tcp", "udp", "sctp")
    if name.endswith("_ADDR"):
        return _is_host(value)
    is_number_of_link = re.search(r"_PORT_\d+_[A-Z]+_PORT$", name) is not None
    return value.isdecimal() if is_number_of_link else _URL_OF_LINK.fullmatch(value) is not None


def _is_host(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def refuse_unasked(
    found: Mapping[str, SettingOrigin], secrets: Collection[str], ambient: Collection[str]
) -> None:
    """Refuse what a file of the directory gives without having been asked for.

    Args:
        found: The settings of a class that something gives, and their origins.
        secrets: Those whose values are credentials.
        ambient: Credentials that come from somewhere else, as messages name them.

    Raises:
        ConfigurationError: A file names code; or a server, while credentials come from elsewhere;
            or a file outside of the directory whose content would be sent; or further networks that
            clients may have reached; or who else may read what tokens protect whose keys come from
            elsewhere.
    """
    unasked = {
        name: origin
        for name, origin in found.items()
        if origin.file is not None and not origin.file.is_asked_for
    }
    for name, origin in unasked.items():
        if _CODE.search(name):
            raise _refusal(origin, "names code that would be run")
        if _SENT_FILE.search(name) and not _is_inside(origin):
            raise _refusal(origin, "names a file outside of its directory, whose content is sent")
        if name in _WIDENING:
            raise _refusal(origin, "decides what clients may have this process send requests to")
    servers = [name for name in unasked if _SERVER.search(name) and not name.startswith(_LISTENING)]
    for name in servers:
        foreign = [*ambient]
        for secret in secrets:
            giver = found.get(secret)
            if secret in _SENT_TO_NOBODY:
                continue
            if secret != name and giver is not None and giver.value and secret not in unasked:
                foreign.append(giver.key)
        if foreign:
            raise _refusal(
                found[name],
                f"decides where credentials go that are not from this file ({foreign[0]})",
            )
    _refuse_permitting(found, unasked)


def _refuse_permitting(
    found: Mapping[str, SettingOrigin], unasked: Mapping[str, SettingOrigin]
) -> None:
    """Refuse a further issuer or anonymous reading where the environment asks for tokens.

    A file that alone says who may read only narrows: without it, everybody may.
    """
    for name in _PERMITTING:
        for key in _KEYS_OF_TOKENS:
            giver = found.get(key)
            if name in unasked and giver is not None and giver.value and key not in unasked:
                raise _refusal(unasked[name], f"decides who may read besides those of {giver.key}")


def directory_files_name_code_or_servers() -> bool:
    """Whether a file of the directory that nothing asked for names code or a server."""
    dotenv, document = read_dotenv(), read_config_file()
    names: list[str] = []
    if not dotenv.is_asked_for:
        names += (name.lower().removeprefix(PREFIX.lower()) for name in dotenv.values)
    if not document.is_asked_for:
        for key, value in document.values.items():
            names += value if isinstance(value, dict) else [key]
    return any(
        _CODE.search(name) or (_SERVER.search(name) and not name.startswith(_LISTENING))
        for name in names
    )


def credentials_of_temporal() -> Iterator[str]:
    """Yield the variables of Temporal's own configuration that are sent to its server."""
    for name, value in os.environ.items():
        if value and (name == "TEMPORAL_API_KEY" or name.startswith("TEMPORAL_GRPC_META_")):
            yield name


def _refusal(origin: SettingOrigin, what: str) -> ConfigurationError:
    path = Path() if origin.file is None else origin.file.path
    named = f"{CONFIG_FILE_VARIABLE}={path}" if path.suffix == ".toml" else ""
    ways = " or ".join(filter(None, (f"{TRUST_VARIABLE}={path.parent}", named)))
    return ConfigurationError(
        f"{origin} {what}, and nothing asked for this file; if the directory is yours, say so in "
        f"the environment: {ways}"
    )


def holds_credentials(name: str) -> bool:
    """Whether a setting of this name leads to credentials without being secret itself."""
    return _SENT_FILE.search(name) is not None or name.endswith(("credentials", "token_provider"))


def _is_inside(origin: SettingOrigin) -> bool:
    if origin.file is None:
        return True
    directory = os.path.realpath(origin.file.path.parent)
    target = os.path.realpath(os.path.join(directory, os.path.expanduser(str(origin.value))))
    return target.startswith(directory + os.sep)
