"""What ends with us, whatever ends us: watched by a process of its own."""

from __future__ import annotations

import os
import subprocess
from types import TracebackType
from typing import Self

# Waits for the end of its standard input, which comes also when our process is killed outright.
_SCRIPT = 'cat >/dev/null; kill -s KILL -- "-$1" 2>/dev/null; [ -z "$2" ] || rm -rf -- "$2"'


class Guardian:
    """Kills a process group once this process has gone, even if that was ``kill -9``.

    Also a context manager; at the end of the block the group is left alone.

    Args:
        group: The process group: the id of a process started with ``start_new_session=True``.
        directory: Removed after it, if given.

    Raises:
        OSError: It cannot be started.
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
        """Leave the group and the directory alone from now on. Idempotent.

        To be done as soon as the group has ended: its id may become somebody else's.
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
