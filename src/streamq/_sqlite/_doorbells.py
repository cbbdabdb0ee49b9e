"""Wakes readers in other processes: each has a doorbell in a directory next to the database.

A process whose reads block binds a datagram socket in the directory. A process that commits sends
one byte to every socket there. A full socket means that the bell is ringing already, a refused one
that its owner has died. The byte only means "look again", so a lost byte costs time and no data.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import stat
import uuid
from pathlib import Path

_SUFFIX = ".bell"
_MAX_PATH_BYTES = 100  # sun_path has 104 bytes on macOS, 108 on Linux, with the final NUL
_NAME_BYTES = 24
_INSTALL_TRIES = 5


class Doorbells:
    """The doorbells of all processes whose reads of one database block."""

    def __init__(self, database: Path) -> None:
        database = database.resolve()
        beside = database.with_name(database.name + "-wake")
        self._database = database
        self._is_far = len(os.fsencode(beside)) + _NAME_BYTES > _MAX_PATH_BYTES
        if self._is_far:
            digest = hashlib.sha256(os.fsencode(database)).hexdigest()[:16]
            # Not tempfile.gettempdir(): processes with another TMPDIR have to meet here.
            beside = Path("/tmp") / f"streamq-{os.geteuid()}-{digest}"
        self.directory = beside
        self._sender: socket.socket | None = None

    def ring(self) -> None:
        """Wake the blocked reads of all other processes. Never blocks."""
        try:
            names = os.listdir(self.directory)
        except OSError:  # no read has ever blocked, or we may not look: readers then poll
            return
        for name in names:
            if name.endswith(_SUFFIX):
                self._ring_one(os.path.join(self.directory, name))

    def _ring_one(self, path: str) -> None:
        try:
            if self._sender is None:
                self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._sender.setblocking(False)
            self._sender.sendto(b"\0", path)
        except ConnectionRefusedError:  # its process was killed
            with contextlib.suppress(OSError):
                os.unlink(path)
        except OSError:
            # Full: it is ringing. Gone: no read blocks. Not permitted: that reader polls.
            return

    def install(self) -> Doorbell | None:
        """Return a bell that :meth:`ring` reaches; ``None`` if the system does not allow it."""
        if not hasattr(socket, "AF_UNIX"):
            return None
        for _ in range(_INSTALL_TRIES):
            try:
                return self._install()
            except FileNotFoundError:  # another process removed the directory with its last bell
                continue
            except OSError:
                return None
        return None

    def _install(self) -> Doorbell:
        self._make_directory()
        path = self.directory / f"{uuid.uuid4().hex[: _NAME_BYTES - 8]}{_SUFFIX}"
        bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            bell.setblocking(False)
            bell.bind(os.fspath(path))
            if not self._is_far:
                path.chmod(stat.S_IMODE(self._database.stat().st_mode) & 0o666)
        except BaseException:
            bell.close()
            raise
        return Doorbell(bell, path)

    def _make_directory(self) -> None:
        if self._is_far:
            with contextlib.suppress(FileExistsError):
                self.directory.mkdir(mode=0o700)
                self.directory.chmod(0o700)  # the umask may have taken more
            found = self.directory.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise PermissionError(f"{self.directory} belongs to another user")
        elif not self.directory.exists():
            # Every user who may write to the database may wake its readers.
            mode = stat.S_IMODE(self._database.stat().st_mode) & 0o666
            with contextlib.suppress(FileExistsError):
                self.directory.mkdir()
                self.directory.chmod(mode | (mode & 0o444) >> 2)

    def close(self) -> None:
        """Release the sending socket."""
        if self._sender is not None:
            self._sender.close()


class Doorbell:
    """The bell of this process."""

    def __init__(self, bell: socket.socket, path: Path) -> None:
        self._socket = bell
        self._path = path

    def is_in(self, doorbells: Doorbells) -> bool:
        """Whether it is still where the processes of a database look for bells."""
        return self._path.parent == doorbells.directory and self._path.exists()

    def fileno(self) -> int:
        """Return the descriptor, readable while the bell rings."""
        return self._socket.fileno()

    def silence(self) -> None:
        """Discard all rings so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)

    def close(self) -> None:
        """Remove the bell, and the directory if it was the last one."""
        with contextlib.suppress(OSError):
            self._path.unlink()
            self._path.parent.rmdir()
        self._socket.close()
