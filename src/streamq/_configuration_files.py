"""Reads ``.env`` and ``streamq.toml``, and decides which of them may name code and servers.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import io
import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from ._errors import ConfigurationError

CONFIG_FILE_VARIABLE = "STREAMQ_CONFIG_FILE"
TRUST_VARIABLE = "STREAMQ_TRUSTED_DIRECTORIES"
DEBUG_VARIABLE = "STREAMQ_DEBUG"
_DOTENV = ".env"
_TOML = "streamq.toml"
_MOST_BYTES = 1_048_576
_REFERENCE = re.compile(r"\$\{([^}:]+)(?::-[^}]*)?\}")


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """A file with settings.

    Attributes:
        path: Where it is, absolute as far as the working directory is known.
        values: Names and values; of TOML the tables, too. Empty if there is no such file.
        is_present: Whether there is one.
        is_asked_for: Whether the environment names this file or trusts its directory: only then
            may it name code, or a server for credentials that are not its own.
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    is_present: bool = False
    is_asked_for: bool = False


def read_dotenv() -> ConfigurationFile:
    """Read ``.env`` in the working directory.

    Raises:
        ConfigurationError: It cannot be read, or takes a variable of the environment into a value
            though nothing asked for this file.
    """
    path = _absolute(Path(_DOTENV))
    if (path / "pyvenv.cfg").exists():
        return ConfigurationFile(path)  # a virtual environment under its old name
    text = _read(path)
    if text is None:
        return ConfigurationFile(path)
    is_asked_for = _is_trusted(path.parent)
    if not is_asked_for:
        _refuse_foreign_references(path, text)
    values = dotenv_values(stream=io.StringIO(text))
    given = {name: value for name, value in values.items() if value is not None}
    return ConfigurationFile(path, given, True, is_asked_for)


def read_config_file() -> ConfigurationFile:
    """Read ``streamq.toml`` in the working directory, or the file that STREAMQ_CONFIG_FILE names.

    Raises:
        ConfigurationError: The named file does not exist, or a file is not valid TOML.
    """
    named = os.environ.get(CONFIG_FILE_VARIABLE)
    path = _absolute(Path(named or _TOML).expanduser())
    text = _read(path)
    if text is None:
        if named:
            raise ConfigurationError(
                f"{CONFIG_FILE_VARIABLE} names {named!r}, which does not exist"
            )
        return ConfigurationFile(path)
    try:
        values = tomllib.loads(text)
    except ValueError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc}") from None
    # A relative name leads to a file of whatever directory the process was started in.
    is_named = bool(named) and Path(named or "").expanduser().is_absolute()
    return ConfigurationFile(path, values, True, _is_trusted(path.parent) or is_named)


def _read(path: Path) -> str | None:
    """Return the text of a file; ``None`` if there is none. Nothing but a regular file is opened.

    A byte-order mark is not part of the text. A pipe would block, and a device has no end.
    """
    try:
        # Checked after opening, so that no other file can take its place in between.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else str(exc)
        raise ConfigurationError(f"cannot read {path}: {reason}") from None
    try:
        kind = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(kind):
            what = "a directory" if stat.S_ISDIR(kind) else "no regular file"
            raise ConfigurationError(f"cannot read {path}: it is {what}; rename or remove it")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(f"cannot read {path}: {exc.strerror}") from None
    finally:
        os.close(descriptor)
    if len(data) > _MOST_BYTES:
        raise ConfigurationError(f"cannot read {path}: it is larger than {_MOST_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise ConfigurationError(
            f"cannot read {path}: line {line} has the byte 0x{data[exc.start]:02x}, which is not "
            "UTF-8; save the file as UTF-8"
        ) from None


def _absolute(path: Path) -> Path:
    try:
        return Path(os.path.abspath(path))
    except OSError:
        return path  # the working directory was removed


def _is_trusted(directory: Path) -> bool:
    listed = os.environ.get(TRUST_VARIABLE, "")
    for text in filter(None, (each.strip() for each in listed.split(os.pathsep))):
        trusted = Path(text).expanduser()
        if not trusted.is_absolute():
            raise ConfigurationError(
                f"{TRUST_VARIABLE} has {text!r}, which is no absolute path: it would mean any "
                "directory; give the whole path"
            )
        if os.path.realpath(directory) == os.path.realpath(trusted):
            return True
    return False


def _refuse_foreign_references(path: Path, text: str) -> None:
    """Refuse ``${NAME}`` of the environment: the value could carry a secret to a server."""
    own: set[str] = set()
    for name, value in dotenv_values(stream=io.StringIO(text), interpolate=False).items():
        for wanted in _REFERENCE.findall(value or ""):
            if wanted in os.environ and wanted not in own:
                raise ConfigurationError(
                    f"{name} in {path} takes {wanted} from the environment, and nothing asked for "
                    f"this file; set {name} in the environment, or trust the directory: "
                    f"{TRUST_VARIABLE}={path.parent}"
                )
        own.add(name)
