"""Defines the base of all settings: which sources give a value, and in which order.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from ._configuration_files import read_config_file, read_dotenv
from ._errors import ConfigurationError
from ._setting_origins import environment, toml_table


class _Given(PydanticBaseSettingsSource):
    """Feeds values into a settings class that were read already."""

    def __init__(self, settings_cls: type[BaseSettings], values: Mapping[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._values)


class SourcedSettings(BaseSettings):
    """Settings from arguments, then the environment, ``.env`` and ``streamq.toml``."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    toml_table: ClassVar[str] = ""

    @field_validator("*", mode="before")
    @classmethod
    def _empty_path_is_none(cls, value: Any, info: ValidationInfo) -> Any:
        is_optional = cls.model_fields[str(info.field_name)].annotation == (Path | None)
        return None if is_optional and value == "" else value

    @classmethod
    def ambient_credentials(cls) -> Collection[str]:
        """Return the credentials that are used and are no settings, as messages name them."""
        return ()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        document = read_config_file()
        table = toml_table(document, cls.toml_table)
        for key in (key for key in table if key not in cls.model_fields):
            where = f"[{cls.toml_table}] in {document.path}" if cls.toml_table else document.path
            meant = did_you_mean(key, cls.model_fields)
            raise ConfigurationError(f"unknown setting {key!r} in {where}{meant}")
        return (
            init_settings,
            _variables(settings_cls, environment()),
            _variables(settings_cls, read_dotenv().values),
            _Given(settings_cls, table),
            file_secret_settings,
        )


def _variables(
    settings_cls: type[BaseSettings], values: Mapping[str, str]
) -> PydanticBaseSettingsSource:
    source = EnvSettingsSource(settings_cls)
    source.env_vars = {name.lower(): value for name, value in values.items()}
    return source


class DriverSettings(SourcedSettings):
    """Base of a driver's settings.

    A subclass sets ``model_config = SettingsConfigDict(env_prefix="STREAMQ_<NAME>_")`` and
    ``toml_table = "<name>"``, describes every field, and keeps secrets in ``SecretStr``. If
    credentials come from elsewhere, :meth:`ambient_credentials` names them: a file of the working
    directory then cannot say where they are sent.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the closest known name, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
