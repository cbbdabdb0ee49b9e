"""Files of records: one JSON document per line, each written by a single system call.

Written lines survive ``kill -9`` of the process. A line that is incomplete all the same (because
the disk is full, for example) is ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class Ledger:
    """A file to append to, for one process at a time.

    A line that an earlier process did not finish is removed first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        whole = path.read_bytes().rfind(b"\n") + 1
        os.ftruncate(self._file, whole)

    def write(self, **fields: object) -> None:
        """Append one line; other processes see it whole or not at all.

        Raises:
            OSError: The disk is full.
        """
        line = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError(f"no room in {self._path}")

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class LedgerTail:
    """Reads a ledger while it grows; a file that does not exist yet is empty."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the whole lines written since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                new = file.read()
        except FileNotFoundError:
            return
        whole = new[: new.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            yield json.loads(line)


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Return all whole lines of a ledger."""
    return list(LedgerTail(path).read())
