"""Every exception of sqlite3 becomes one of streamq's errors."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from streamq._sqlite._errors import sqlite_errors, to_streamq
from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    StorageFullError,
    StreamqError,
)


@pytest.mark.parametrize(
    "exception",
    [
        found
        for found in vars(sqlite3).values()
        if isinstance(found, type) and issubclass(found, Exception)
    ],
)
def test_every_exception_of_the_client_is_translated(
    exception: type[Exception], path: Path
) -> None:
    """Users catch StreamqError; they cannot expect an exception of sqlite3."""
    with pytest.raises(StreamqError) as caught, sqlite_errors(path):
        raise exception("trouble")
    assert isinstance(caught.value.__cause__, exception)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_BUSY, BackendUnavailableError),
        (sqlite3.SQLITE_BUSY_RECOVERY, BackendUnavailableError),
        (sqlite3.SQLITE_LOCKED, BackendUnavailableError),
        (sqlite3.SQLITE_FULL, StorageFullError),
        (sqlite3.SQLITE_IOERR_SHMSIZE, StorageFullError),
        (sqlite3.SQLITE_READONLY, AccessDeniedError),
        (sqlite3.SQLITE_READONLY_DBMOVED, BackendError),
        (sqlite3.SQLITE_PERM, AccessDeniedError),
        (sqlite3.SQLITE_CANTOPEN, BackendUnavailableError),
        (sqlite3.SQLITE_CORRUPT, BackendError),
        (sqlite3.SQLITE_NOTADB, BackendError),
        (sqlite3.SQLITE_IOERR_WRITE, BackendError),
        (sqlite3.SQLITE_TOOBIG, BackendError),
        (sqlite3.SQLITE_ERROR, BackendError),
    ],
)
def test_result_codes_become_the_situation(
    code: int, error: type[StreamqError], path: Path
) -> None:
    """Whether streamq retries depends on the class of the error alone."""
    exception = sqlite3.OperationalError("trouble")
    exception.sqlite_errorcode = code
    assert type(to_streamq(exception, path=path)) is error
