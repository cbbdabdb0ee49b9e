"""Keeps some disk space in reserve, so that streams can be deleted when the disk is full.

Design: docs/design/sqlite.md.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_RESERVE_BYTES = 8 * 2**20
_SHARE = 4  # of what a small disk has left
_ROOMY_BYTES = 2**30
_BLOCK = bytes(2**16)


class Reserve:
    """A file of zeros next to the database, which is there while the disk is nearly full.

    Args:
        database: The database, as a real path.
    """

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(f"{database.name}-reserve")

    def keep(self) -> bool:
        """Create the file if the disk is nearly full; remove it if there is much room again.

        Returns:
            Whether the disk is nearly full.
        """
        try:
            disk = os.statvfs(self.path.parent)
            free = disk.f_bavail * disk.f_frsize
            if free >= _ROOMY_BYTES:
                self.release()
                return False
            if not self.path.exists():
                self._create(min(_RESERVE_BYTES, free // _SHARE))
        except OSError:
            pass  # then there is none
        return True

    def release(self) -> bool:
        """Remove the file; return whether there was one."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True

    def _create(self, size: int) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        descriptor = os.open(self.path, flags, 0o600)
        try:
            for _ in range(size // len(_BLOCK)):
                os.write(descriptor, _BLOCK)
        except OSError:
            with contextlib.suppress(OSError):
                self.path.unlink()
        finally:
            os.close(descriptor)
