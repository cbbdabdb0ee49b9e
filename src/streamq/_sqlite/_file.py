"""Creates the database file, and notices when it is removed or replaced while it is open.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
from pathlib import Path
from typing import TypeAlias

from streamq.driver import AccessDeniedError, ConfigurationError, StorageFullError

from ._errors import BACKEND

_HINT = "set STREAMQ_SQLITE_PATH to a file on a local disk"
_LOGS = ("-wal", "-shm")

Identity: TypeAlias = tuple[int, int] | None
"""Device and inode of a file; ``None`` if there is none."""


class Change(enum.Enum):
    """Difference between the files that a connection has open and those at their paths.

    The values are for messages.
    """

    REMOVED = "was removed"
    REPLACED = "was replaced by another file"
    LOG_REMOVED = "lost its write-ahead log"
    LOG_REPLACED = "has another write-ahead log"


class DatabaseFile:
    """The files of one connection: the database and SQLite's log beside it.

    Args:
        given: Path as it was set. A symbolic link in it may lead to another file later.
    """

    def __init__(self, given: Path) -> None:
        self.given = given
        self.path = given
        self._database: Identity = None
        self._path = os.fspath(given)
        self._logs: list[tuple[str, Identity]] = []

    def prepare(self) -> None:
        """Create the directory and the file if there are none, readable for their owner only.

        Raises:
            ConfigurationError: The path cannot be used.
            AccessDeniedError: We may not write there.
            StorageFullError: There is no room for another file.
        """
        self.path = _prepared(self.given)
        self._database = _identity(self._path)

    def note(self) -> bool:
        """Note which files a new connection has open; return ``False`` if they are others by now.

        The files have to be in use: SQLite creates its log with the first transaction.
        """
        logs = [f"{self.path}{suffix}" for suffix in _LOGS]
        self._logs = [(log, found) for log in logs if (found := _identity(log)) is not None]
        return self._database is not None and _identity(self._path) == self._database

    def change(self) -> Change | None:
        """Compare the files that are open with those at the paths; costs a few microseconds.

        Raises:
            AccessDeniedError: This process may no longer look.
        """
        try:
            database = _identity(self._path)
            if database != self._database:
                return Change.REMOVED if database is None else Change.REPLACED
            found = None
            for log, opened in self._logs:
                now = _identity(log)
                if now != opened:
                    if now is not None:
                        return Change.LOG_REPLACED
                    found = Change.LOG_REMOVED
            return found
        except OSError as exc:
            raise AccessDeniedError(
                f"cannot look at {self.given} any more: {exc}; restore the permissions of its "
                "directory",
                backend=BACKEND,
            ) from exc

    def shares_database(self, other: DatabaseFile) -> bool:
        """Whether both connections have the same database open."""
        return self._database == other._database

    def log_bytes(self) -> int:
        """Return the size of the write-ahead log."""
        try:
            return os.stat(f"{self.path}-wal").st_size
        except OSError:
            return 0


def _identity(path: str) -> Identity:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def absolute(path: Path) -> Path:
    """Return a path that is still right after a change of the directory; links stay links.

    Raises:
        ConfigurationError: The path cannot be used.
    """
    if str(path) == ":memory:" or str(path).startswith("file:"):
        raise ConfigurationError(
            f"{str(path)!r} is not a file path; {_HINT}, or use the memory backend", backend=BACKEND
        )
    try:
        return path.expanduser().absolute()
    except (OSError, RuntimeError) as exc:
        raise ConfigurationError(f"cannot use {path}: {exc}; {_HINT}", backend=BACKEND) from exc


def _prepared(given: Path) -> Path:
    try:
        path = given.resolve()
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.chmod(0o700)  # the umask may have taken more
        is_directory = path.is_dir()
    except PermissionError as exc:
        raise AccessDeniedError(f"cannot use {given}: {exc}; {_HINT}", backend=BACKEND) from exc
    except (OSError, RuntimeError, ValueError) as exc:
        raise ConfigurationError(f"cannot use {given}: {exc}; {_HINT}", backend=BACKEND) from exc
    if is_directory:
        raise ConfigurationError(f"{path} is a directory; {_HINT}", backend=BACKEND)
    existing = path if path.exists() else path.parent
    if not (os.access(existing, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)):
        raise AccessDeniedError(
            f"{existing} is read-only for this process, and SQLite has to write to the file and "
            f"its directory; {_HINT}",
            backend=BACKEND,
        )
    _create(path)
    return path


def _create(path: Path) -> None:
    """Create an empty file for its owner only, whatever the umask; SQLite's log gets its mode.

    Without opening it where the system allows that: closing a file ends all locks that this process
    has on it, also those of other connections.
    """
    try:
        with contextlib.suppress(FileExistsError):
            try:
                os.mknod(path, stat.S_IFREG | 0o600)
            except PermissionError:  # macOS
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            path.chmod(0o600)
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            return  # SQLite reports it
        raise StorageFullError(
            f"cannot create {path}: {exc}; free some disk space", backend=BACKEND
        ) from exc
