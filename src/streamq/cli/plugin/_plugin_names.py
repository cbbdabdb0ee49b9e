"""Checks the name of a new driver, and derives the names of its package from it.

Design: docs/design/scaffold.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from streamq._configuration_files import CONFIG_FILE_VARIABLE, DEBUG_VARIABLE, TRUST_VARIABLE
from streamq._errors import ConfigurationError
from streamq._setting_origins import PREFIX
from streamq._settings import OFFICIAL_PLUGINS, Settings
from streamq.driver import seen_value
from streamq.opening._drivers import installed_drivers

_LONGEST = 20
_FORM = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
_OURS = {"aws", *OFFICIAL_PLUGINS}


@dataclass(frozen=True, slots=True)
class PluginNames:
    """The names of one plugin.

    Attributes:
        name: Name of the backend, for ``STREAMQ_BACKEND``.
    """

    name: str

    @property
    def distribution(self) -> str:
        """Name of the package on an index, and of its directory."""
        return f"streamq-{self.name.replace('_', '-')}"

    @property
    def module(self) -> str:
        """Name of the package that is imported."""
        return f"streamq_{self.name}"

    @property
    def title(self) -> str:
        """Beginning of the names of its classes."""
        return "".join(part.capitalize() for part in self.name.split("_"))


def plugin_names(name: str) -> PluginNames:
    """Return the names of a plugin.

    Raises:
        ConfigurationError: The name cannot be that of a backend, or is taken.
    """
    if not _FORM.fullmatch(name) or len(name) > _LONGEST:
        raise ConfigurationError(
            f"{seen_value(name)} cannot be the name of a backend: it has to begin with a letter "
            f"and have at most {_LONGEST} of a-z, 0-9 and single underscores{_meant(name)}"
        )
    if name in _OURS or name in installed_drivers():
        raise ConfigurationError(
            f"the backend {name!r} exists already (`streamq backends` lists what is installed); "
            "choose another name, or uninstall that one"
        )
    variables = {PREFIX + field.upper() for field in Settings.model_fields}
    variables |= {CONFIG_FILE_VARIABLE, TRUST_VARIABLE, DEBUG_VARIABLE}
    own = f"{PREFIX}{name.upper()}"
    taken = sorted(each for each in variables if each == own or each.startswith(f"{own}_"))
    if taken:
        raise ConfigurationError(
            f"a backend {name!r} would have variables that begin with {own}_, as {taken[0]} of "
            "streamq itself does; choose another name"
        )
    return PluginNames(name)


def empty_directory(path: Path) -> Path:
    """Return the directory that a plugin can be made in, which need not exist.

    Raises:
        ConfigurationError: There is something already.
    """
    try:
        found = sorted(each.name for each in path.iterdir())
    except FileNotFoundError:
        return path
    except NotADirectoryError as exc:
        raise ConfigurationError(f"{path} is a file; name another place with --directory") from exc
    if found:
        more = " and more" if len(found) > 1 else ""
        raise ConfigurationError(
            f"{path} is not empty: it has {found[0]}{more}; name another place with --directory, "
            "or bring a plugin up to date with `streamq plugin update`"
        )
    return path


def _meant(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower().removeprefix("streamq")).strip("_0123456789")
    return f"; did you mean {plain!r}?" if _FORM.fullmatch(plain) and plain != name else ""
