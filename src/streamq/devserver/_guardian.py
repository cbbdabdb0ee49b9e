"""Kills a process group when this process has ended, even by ``kill -9``."""

from __future__ import annotations

import os
import subprocess
from types import TracebackType
from typing import Self

# Waits for the end of its standard input, which is closed even when this process is killed.
_SCRIPT = 'cat >/dev/null; kill -s KILL -- "-$1" 2>/dev/null; [ -z "$2" ] || rm -rf -- "$2"'


class Guardian:
    """A process that kills a process group once this process has ended, even by ``kill -9``.

    Also a context manager, which dismisses the guardian at the end of the block.

    Args:
        group: The process group: the id of a process started with ``start_new_session=True``.
        directory: A directory to remove afterwards, if given.

    Raises:
        OSError: The guardian cannot be started.
    """

    def __init__(self, group: int, *, directory: str | os.PathLike[str] | None = None) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "sh", str(group), os.fspath(directory or "")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def dismiss(self) -> None:
        """End the guardian; group and directory are left alone. Idempotent.

        Call it as soon as the group has ended, because its id may be reused.
        """
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.dismiss()
