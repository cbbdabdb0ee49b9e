"""``streamq config``: shows the settings in effect and their sources, with secrets masked."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Annotated

import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings
from rich.text import Text

from streamq._configuration_files import (
    CONFIG_FILE_VARIABLE,
    DEBUG_VARIABLE,
    TRUST_VARIABLE,
    read_config_file,
)
from streamq._errors import ConfigurationError
from streamq._setting_origins import PREFIX, SettingOrigin, service_links
from streamq._settings import (
    Settings,
    build,
    check_variables,
    load_settings,
    origins_of,
    variable_of,
)
from streamq.driver_parts._credentials import mask_value
from streamq.opening._data_converter import configured_conversion
from streamq.opening._drivers import installed_drivers, load_driver
from streamq.opening._open import stream_id

from ._terminal import Table, show_json, show_note, show_table, stdout


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in effect.

    Attributes:
        variable: Environment variable that sets it.
        value: JSON-ready value, masked if it is secret.
        source: ``environment``, the path of ``.env`` or of the configuration file, ``Temporal's
            profile`` (``TEMPORAL_...`` and ``temporal.toml``), or ``default``.
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
    found = [*_with_profile(ours, settings), *drivers, *_about_files()]
    if links := service_links():
        show_note(f"ignored as links of Kubernetes to services, not settings: {', '.join(links)}")
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
        value = mask_value(stated.get(each.variable))
        if each.source == "default" and value is not None and value != each.value:
            yield replace(each, value=value, source="Temporal's profile")
        else:
            yield each


def _in_effect(settings: BaseSettings) -> Iterator[Setting]:
    kind = type(settings)
    found = origins_of(kind)
    for name, field in kind.model_fields.items():
        origin = found.get(name)
        yield Setting(
            variable_of(kind, name),
            mask_value(getattr(settings, name), name),
            "default" if origin is None else _source(origin),
            field.description or "",
        )


def _source(origin: SettingOrigin) -> str:
    return "environment" if origin.file is None else str(origin.file.path)


def _about_files() -> Iterator[Setting]:
    """Yield the variables that say which files are read and trusted; they are no settings."""
    document = read_config_file()
    missing = "" if document.is_present else " (not present)"
    for variable, value, description in (
        (
            CONFIG_FILE_VARIABLE,
            str(document.path),
            f"configuration file in TOML{missing}",
        ),
        (
            TRUST_VARIABLE,
            os.environ.get(TRUST_VARIABLE),
            "directories whose .env and streamq.toml may name code, and servers for credentials "
            "that are not from these files",
        ),
        (DEBUG_VARIABLE, os.environ.get(DEBUG_VARIABLE), "1 shows tracebacks of unexpected errors"),
    ):
        source = "environment" if variable in os.environ else "default"
        yield Setting(variable, value, source, description)
