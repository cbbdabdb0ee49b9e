"""``streamq config``: shows the settings in effect and their sources, with secrets masked."""

from __future__ import annotations

import enum
import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import typer
from dotenv import dotenv_values
from pydantic import SecretBytes, SecretStr
from pydantic_settings import BaseSettings
from rich.table import Table
from rich.text import Text

from streamq._errors import ConfigurationError
from streamq._settings import (
    CONFIG_FILE_VARIABLE,
    PREFIX,
    Settings,
    build,
    check_variables,
    load_settings,
    read_config_file,
)
from streamq.opening._data_converter import configured_conversion
from streamq.opening._drivers import installed_drivers, load_driver
from streamq.opening._open import stream_id

from ._terminal import show_json, show_note, show_table, stdout

_MASK = "**********"
_DOTENV = ".env"
_USER_INFO = re.compile(r"(?<=://)[^\s]*@")
_SECRET_PARAMETER = re.compile(
    r"(?i)([?&;][^=&;\s]*(?:password|passwd|secret|token|key|sig)[^=&;\s]*=)[^&;\s]+"
)
# Host, port and number of a database, or the path of a socket. Any other secret, such as a URL
# whose password has special characters that are not encoded, is masked as a whole.
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:(?P<user>[^:@/?#\s]*)(?::(?P<password>[^@/?#\s]*))?@)?"
    r"(?P<place>(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:/\d{0,4})?"
    r"|(?<=unix://)/[^?@#\s]*|(?<=@)/[^?@#\s]*)"
    r"(?P<query>\?[^@#\s]*)?"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in effect.

    Attributes:
        variable: Environment variable that sets it.
        value: JSON-ready value, masked if it is secret.
        source: ``environment``, ``.env``, the configuration file's path, ``Temporal's profile``
            (``TEMPORAL_...`` and ``temporal.toml``), or ``default``.
        description: Its meaning.
    """

    variable: str
    value: bool | int | float | str | None
    source: str
    description: str


def config(
    as_json: Annotated[bool, typer.Option("--json", help="Print the same facts as JSON.")] = False,
) -> None:
    """Show the settings in effect and their sources.

    Shows the value, source and meaning of each setting. The environment wins over .env, which wins
    over streamq.toml. Secrets are masked. A mistyped STREAMQ_... variable is an error.

    \b
    Examples:
      streamq config
      STREAMQ_BACKEND=redis streamq config --json
    """
    settings = load_settings()
    driver = load_driver(settings.backend)
    check_variables(settings, driver.settings_type, installed_drivers())
    configured_conversion(settings, stream_id("any", settings))  # raises if the converter is wrong
    ours, drivers = [*_in_effect(settings)], [*_in_effect(build(driver.settings_type))]
    found = [*_with_profile(ours, settings), *drivers, _config_file()]
    if as_json:
        show_json({"backend": settings.backend, "settings": [asdict(s) for s in found]})
        return
    console = stdout()
    table = Table()
    longest = max(len(setting.variable) for setting in found)
    table.add_column("variable", min_width=longest)  # not shortened, so that it can be copied
    for title in ("value", "source", "meaning"):
        table.add_column(title, overflow="fold")
    for setting in found:
        chosen = "" if setting.source == "default" else "bold"
        table.add_row(
            Text(setting.variable, style=chosen),
            Text("" if setting.value is None else str(setting.value), style=chosen),
            Text(setting.source),
            Text(setting.description, style="dim"),
        )
    show_table(table, console)


def _with_profile(found: list[Setting], settings: Settings) -> Iterator[Setting]:
    """Fill in what the profile of Temporal's own configuration states about Temporal."""
    if importlib.util.find_spec("temporalio") is None:
        yield from found
        return
    try:
        endpoint = settings.temporal_target.resolve()
    except ConfigurationError as exc:
        # The settings are needed to find the fault.
        show_note(f"{exc}; what Temporal's profile states is not shown")
        yield from found
        return
    stated = {
        f"{PREFIX}TEMPORAL_ADDRESS": endpoint.address,
        f"{PREFIX}TEMPORAL_NAMESPACE": endpoint.namespace,
        f"{PREFIX}TEMPORAL_API_KEY": SecretStr(endpoint.api_key) if endpoint.api_key else None,
        f"{PREFIX}TEMPORAL_TLS": True if endpoint.tls else None,
    }
    for each in found:
        value = mask(stated.get(each.variable))
        if each.source == "default" and value is not None and value != each.value:
            yield replace(each, value=value, source="Temporal's profile")
        else:
            yield each


def mask(value: object) -> bool | int | float | str | None:
    """Return a value in a form that may be shown: JSON-ready and without secrets."""
    if isinstance(value, SecretStr):
        return _mask_secret(value.get_secret_value())
    if isinstance(value, SecretBytes):
        return _MASK if value.get_secret_value() else ""
    if isinstance(value, enum.Enum):
        return mask(value.value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if "-----BEGIN" in str(value):  # a key where the path of a file is expected
        return _MASK
    text = _USER_INFO.sub(f"{_MASK}@", str(value))
    return _SECRET_PARAMETER.sub(rf"\g<1>{_MASK}", text)


def _mask_secret(secret: str) -> str:
    """Mask a secret; of an address, mask only the parts that may be secret, not host and port."""
    found = _ADDRESS.fullmatch(secret.strip())
    if found is None:
        return _MASK if secret else ""
    user, password = found["user"] or "", found["password"]
    credentials = ""
    if password:
        credentials = f"{user}:{_MASK}@"
    elif user:  # some services accept a token there
        credentials = f"{_MASK}@"
    query = f"?{_MASK}" if found["query"] else ""
    return f"{found['scheme']}://{credentials}{found['place']}{query}"


def _in_effect(settings: BaseSettings) -> Iterator[Setting]:
    kind = type(settings)
    prefix = kind.model_config.get("env_prefix", "")
    environment = {name.upper() for name in os.environ}
    dotenv = {name.upper() for name in dotenv_values(_DOTENV)}
    path, document = read_config_file()
    name_of_table = str(getattr(kind, "toml_table", ""))
    table = document.get(name_of_table, {}) if name_of_table else document
    for name, field in kind.model_fields.items():
        variable = f"{prefix}{name}".upper()
        if variable in environment:
            source = "environment"
        elif variable in dotenv:
            source = _DOTENV
        elif name in table:
            source = str(path)
        else:
            source = "default"
        yield Setting(variable, mask(getattr(settings, name)), source, field.description or "")


def _config_file() -> Setting:
    path, document = read_config_file()
    named = CONFIG_FILE_VARIABLE in os.environ
    missing = "" if document or named else " (not present)"
    return Setting(
        CONFIG_FILE_VARIABLE,
        str(path),
        "environment" if named else "default",
        f"configuration file in TOML{missing}",
    )
