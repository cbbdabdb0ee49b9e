"""Translates sqlite3's exceptions into streamq's errors, by SQLite's result codes.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import os
import sqlite3
from functools import partial
from pathlib import Path

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    StorageFullError,
    StreamqError,
    translated_errors,
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


def sqlite_errors(path: Path) -> translated_errors:
    """Return a context that turns every exception into an error of streamq.

    Bugs as well: the context surrounds the work of threads, which can report an error in no other
    way.
    """
    return translated_errors(partial(to_streamq, path=path))


def to_streamq(exc: Exception, stream: str | None = None, *, path: Path) -> StreamqError:
    """Return streamq's error for an exception of the sqlite3 module, or of a bug.

    Args:
        exc: The exception.
        stream: Ignored: a transaction serves several streams, and ``for_stream`` adds the name.
        path: The database.
    """
    code = getattr(exc, "sqlite_errorcode", None)
    reason = f"{exc} ({getattr(exc, 'sqlite_errorname', type(exc).__name__)})"
    if code is None:
        return BackendError(f"{path}: {reason}", backend=BACKEND)
    if code & 0xFF == sqlite3.SQLITE_CANTOPEN:
        return _cannot_open(path, reason)
    error, step = _BY_EXTENDED_CODE.get(code) or _BY_PRIMARY_CODE.get(
        code & 0xFF, (BackendError, "please report this")
    )
    return error(f"{path}: {reason}; {step}", backend=BACKEND)


def _cannot_open(path: Path, reason: str) -> StreamqError:
    # SQLite does not report the reason, so check: users have to fix permissions, the rest may pass.
    reachable = os.access(path.parent, os.W_OK | os.X_OK)
    if not reachable or (path.exists() and not os.access(path, os.R_OK | os.W_OK)):
        return AccessDeniedError(
            f"{path}: {reason}; this process needs write permission for the file and its directory",
            backend=BACKEND,
        )
    return BackendUnavailableError(
        f"{path}: {reason}; the directory may have vanished, or the process has too many open "
        "files",
        backend=BACKEND,
    )
