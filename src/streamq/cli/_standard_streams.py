"""Prepares standard input, output and error, which whoever started the command may have closed."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO


def prepare_standard_streams() -> None:
    """Let every file descriptor and stream exist, and let no character make writing fail.

    A closed standard output stays one that cannot be written: a command whose results are lost has
    failed. What would go to a closed standard error is discarded. No file or connection gets one of
    the three numbers.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        with contextlib.suppress(OSError):
            os.fstat(number)
            continue
        os.open(os.devnull, mode)  # gets the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = _text(os.open(os.devnull, os.O_RDONLY))
    if sys.stderr is None:
        sys.stderr = _text(os.open(os.devnull, os.O_WRONLY))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Characters that the terminal cannot show are escaped, and never cause a failure.
            stream.reconfigure(errors="backslashreplace")


def flush(stream: TextIO | None) -> None:
    """Write out what is buffered.

    Raises:
        OSError: It cannot be written.
    """
    if stream is not None:
        stream.flush()


def discard(stream: TextIO | None) -> None:
    """Discard unwritten output, so that the interpreter reports no error about it at its end."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _text(descriptor: int) -> TextIO:
    return io.TextIOWrapper(io.BufferedWriter(io.FileIO(descriptor, "wb", closefd=False)), "utf-8")
