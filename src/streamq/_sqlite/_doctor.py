"""Examines a database and the place where it is, for ``streamq doctor``.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from streamq.driver import Finding

from . import _schema as schema
from ._errors import sqlite_errors
from ._settings import SqliteSettings

_FEW_BYTES = 2**30
_VERY_FEW_BYTES = 16 * 2**20
_CHECK_SECONDS = 5.0
_NO_TIME = 10**16  # applications may count epochs themselves
_STEPS_BETWEEN_LOOKS = 10_000
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_NETWORK = frozenset(
    (
        *(
            "9p",
            "afs",
            "ceph",
            "cifs",
            "fuse.gcsfuse",
            "fuse.rclone",
            "fuse.s3fs",
            "fuse.sshfs",
            "gfs2",
        ),
        *("glusterfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3", "smbfs", "vboxsf", "virtiofs"),
    )
)
_MOUNTS = Path("/proc/self/mounts")


def examine(path: Path, settings: SqliteSettings) -> tuple[Finding, ...]:
    """Examine a database that a queue has opened. Changes nothing.

    Args:
        path: The database, as a real path.
        settings: The driver's settings.

    Returns:
        One finding with all that is as it should be, and one for each problem.
    """
    # Not with schema.connect: a damaged file is a finding here.
    connect = sqlite3.connect(path, timeout=settings.busy_seconds, isolation_level=None)
    with sqlite_errors(path), contextlib.closing(connect) as connection:
        found = [
            Finding("sqlite", True, f"SQLite {sqlite3.sqlite_version}"),
            *_file_system(path),
            *_room(path, connection),
            *_permissions(path),
            *_database(path, connection),
        ]
    is_fine = [each.ok and not each.is_warning for each in found]
    sound = "; ".join(each.detail for each, fine in zip(found, is_fine, strict=True) if fine)
    problems = [each for each, fine in zip(found, is_fine, strict=True) if not fine]
    return Finding("server", True, sound), *problems


def _file_system(path: Path) -> Iterator[Finding]:
    kind = _file_system_of(path)
    if kind is None:
        return
    subject, detail = "file system", f"{path.parent} is on {kind}"
    if kind in _NETWORK:
        remedy = "set STREAMQ_SQLITE_PATH to a local disk: SQLite's log and locks need one machine"
        yield Finding(subject, False, detail, remedy)
    elif kind in ("tmpfs", "ramfs"):
        remedy = "set STREAMQ_SQLITE_PATH to a disk, unless streams may be gone after a restart"
        yield Finding(subject, True, f"{detail}, which is memory", remedy, is_warning=True)
    else:
        yield Finding(subject, True, detail)


def _file_system_of(path: Path) -> str | None:
    """Return the kind of the innermost mount that holds a path, where the system says so."""
    try:
        lines = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    longest, found = -1, None
    for line in lines:
        fields = line.split(" ")
        place = Path(fields[1].replace("\\040", " "))
        if path.is_relative_to(place) and len(place.parts) >= longest:
            longest, found = len(place.parts), fields[2]
    return found


def _room(path: Path, connection: sqlite3.Connection) -> Iterator[Finding]:
    disk = os.statvfs(path.parent)
    unused = _unused(connection)
    free = disk.f_bavail * disk.f_frsize + unused
    subject, detail = "disk", f"{free / 2**20:,.0f} MiB free"
    if unused > 2**20:
        detail += f", {unused / 2**20:,.0f} of them in the file"
    remedy = "free some disk space, delete streams or shorten STREAMQ_TTL_SECONDS"
    if free < _VERY_FEW_BYTES:
        yield Finding(subject, False, detail, remedy)
    else:
        is_little = free < _FEW_BYTES
        yield Finding(subject, True, detail, remedy if is_little else "", is_warning=is_little)


def _unused(connection: sqlite3.Connection) -> int:
    """Return the bytes in the file that deleted streams have left for new ones."""
    (pages,) = connection.execute("PRAGMA freelist_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    return int(pages * size)


def _permissions(path: Path) -> Iterator[Finding]:
    wide = []
    for suffix in ("", "-wal", "-shm", "-reserve"):
        with contextlib.suppress(OSError):
            file = path.with_name(path.name + suffix)
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & _OTHERS:
                wide.append((file, mode))
    owner = path.stat().st_uid
    if wide:
        names = ", ".join(f"{file.name} {mode:04o}" for file, mode in wide)
        remedy = f"chmod 600 {path}*, unless other users share it on purpose"
        yield Finding("permissions", True, f"others have access: {names}", remedy, is_warning=True)
    elif owner != os.geteuid():
        remedy = "run all processes that use it as one user"
        detail = f"{path} belongs to user {owner}, not to this process's, {os.geteuid()}"
        yield Finding("permissions", True, detail, remedy, is_warning=True)
    else:
        yield Finding("permissions", True, "only the owner can read it")


def _database(path: Path, connection: sqlite3.Connection) -> Iterator[Finding]:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    log = _size(Path(f"{path}-wal"))
    too_long = log > schema.LOG_LIMIT_BYTES
    yield Finding(
        "write-ahead log",
        True,
        f"journal mode {mode}, {log / 2**20:,.1f} MiB",
        "end the program that keeps a transaction open on the file" if too_long else "",
        is_warning=too_long,
    )
    integrity = _integrity(connection, path)
    yield integrity
    if integrity.ok:
        yield _clock(connection)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _integrity(connection: sqlite3.Connection, path: Path) -> Finding:
    """Check the file for as long as a person waits; a large one takes minutes."""
    give_up = time.monotonic() + _CHECK_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > give_up, _STEPS_BETWEEN_LOOKS)
    subject = "integrity"
    size = f"{_size(path) / 2**20:,.1f} MiB"
    try:
        problems = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        detail = f"no damage found in {_CHECK_SECONDS:g} s; not all of {size} was checked"
        return Finding(subject, True, detail)
    except sqlite3.DatabaseError as exc:
        problems = [str(exc)]
    finally:
        connection.set_progress_handler(None, 0)
    if problems == ["ok"]:
        return Finding(subject, True, f"no damage in {size}")
    remedy = "move the file away (streams in it are lost) or restore a backup"
    return Finding(subject, False, "; ".join(problems)[:300], remedy)


def _clock(connection: sqlite3.Connection) -> Finding:
    """Compare the clock with the newest epoch that is a time: it may have been set back."""
    (newest,) = connection.execute("SELECT coalesce(max(epoch), 0) FROM streams").fetchone()
    ahead = newest / 1e6 - time.time()
    if ahead > 1 and newest < _NO_TIME:
        remedy = "check this machine's clock; streams expire by it"
        detail = f"the newest attempt began {ahead:,.0f} s in the future"
        return Finding("clock", True, detail, remedy, is_warning=True)
    return Finding("clock", True, "no attempt began in the future")
