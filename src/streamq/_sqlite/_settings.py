"""The driver's settings.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streamq.driver import DriverSettings


class SqliteSettings(DriverSettings):
    """Settings of the SQLite driver.

    Attributes:
        synchronous: With ``normal``, what an append has acknowledged survives the death of every
            process (``kill -9``), but the last appends before a power cut or a crash of the
            operating system may be lost; the file stays intact either way. ``full`` waits for the
            disk at each commit, which costs milliseconds, and survives a power cut as well.
    """

    model_config = SettingsConfigDict(env_prefix="STREAMQ_SQLITE_")

    toml_table = "sqlite"

    path: Path = Field(
        default=Path(".streamq/streams.db"),
        description="database file on a local disk; it and its directory are created",
    )
    synchronous: Literal["normal", "full"] = Field(
        default="normal",
        description="'full' also survives a power cut; 'normal' every crash of a process",
    )
    busy_seconds: Annotated[float, Field(gt=0)] = Field(
        default=5.0, description="how long to wait for another process's write before giving up"
    )
    secure_delete: bool = Field(
        default=True,
        description="overwrite deleted streams with zeros; without it deleting is several times "
        "faster, and their bytes stay in the file until it needs the room",
    )
