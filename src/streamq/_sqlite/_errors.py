"""From sqlite3's exceptions to streamq's: the one place that knows what SQLite's codes mean."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamq._errors import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    StorageFullError,
    StreamqError,
)

BACKEND = "sqlite"

_MOVED = sqlite3.SQLITE_READONLY_DBMOVED
_BY_EXTENDED_CODE: dict[int, tuple[type[StreamqError], str]] = {
    _MOVED: (BackendError, "the file was moved or deleted while it was open; restart with it back"),
    sqlite3.SQLITE_IOERR_SHMSIZE: (StorageFullError, "free some disk space"),
    sqlite3.SQLITE_IOERR_NOMEM: (StorageFullError, "this process is out of memory"),
}
_BY_PRIMARY_CODE: dict[int, tuple[type[StreamqError], str]] = {
    sqlite3.SQLITE_BUSY: (
        BackendUnavailableError,
        "another process has held the write lock for longer than STREAMQ_SQLITE_BUSY_SECONDS",
    ),
    sqlite3.SQLITE_LOCKED: (BackendUnavailableError, "another connection has locked it"),
    sqlite3.SQLITE_PROTOCOL: (BackendUnavailableError, "too many processes are opening it at once"),
    sqlite3.SQLITE_INTERRUPT: (BackendUnavailableError, "the operation was interrupted"),
    sqlite3.SQLITE_FULL: (
        StorageFullError,
        "free some disk space, delete streams or shorten the TTL",
    ),
    sqlite3.SQLITE_NOMEM: (StorageFullError, "this process is out of memory"),
    sqlite3.SQLITE_READONLY: (
        AccessDeniedError,
        "this process needs write permission for the file and its directory",
    ),
    sqlite3.SQLITE_PERM: (AccessDeniedError, "check the permissions of the file"),
    sqlite3.SQLITE_AUTH: (AccessDeniedError, "check the permissions of the file"),
    sqlite3.SQLITE_CORRUPT: (
        BackendError,
        "the file is damaged; move it away (streams in it are lost) or restore a backup",
    ),
    sqlite3.SQLITE_NOTADB: (
        BackendError,
        "this is not a SQLite database; move it away or set STREAMQ_SQLITE_PATH to another file",
    ),
    sqlite3.SQLITE_IOERR: (BackendError, "the disk or file system failed; see the system's log"),
    sqlite3.SQLITE_TOOBIG: (BackendError, "a record is larger than SQLite can store"),
}


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn every exception into an error of streamq: threads have no other way to report one."""
    try:
        yield
    except StreamqError:
        raise
    except Exception as exc:
        raise translate(exc, path) from exc


def translate(exc: Exception, path: Path) -> StreamqError:
    """Return the streamq error for an exception of the sqlite3 module, or of a bug."""
    code = getattr(exc, "sqlite_errorcode", None)
    said = f"{exc} ({getattr(exc, 'sqlite_errorname', type(exc).__name__)})"
    if code is None:
        return BackendError(f"{path}: {said}", backend=BACKEND)
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return _cannot_open(path, said)
    error, step = _BY_EXTENDED_CODE.get(code) or _BY_PRIMARY_CODE.get(
        code & 0xFF, (BackendError, "please report this")
    )
    return error(f"{path}: {said}; {step}", backend=BACKEND)


def _cannot_open(path: Path, said: str) -> StreamqError:
    # SQLite does not say why, so look: permissions are for the user to fix, the rest may pass.
    reachable = os.access(path.parent, os.W_OK | os.X_OK)
    if not reachable or (path.exists() and not os.access(path, os.R_OK | os.W_OK)):
        return AccessDeniedError(
            f"{path}: {said}; this process needs write permission for the file and its directory",
            backend=BACKEND,
        )
    return BackendUnavailableError(
        f"{path}: {said}; the directory may have vanished, or the process has too many open files",
        backend=BACKEND,
    )


def for_stream(error: StreamqError, stream: str) -> StreamqError:
    """Return a copy of an error that several calls share, for one of them."""
    copy = type(error)(error.message, backend=error.backend, stream=stream or None)
    copy.__cause__ = error.__cause__
    return copy
