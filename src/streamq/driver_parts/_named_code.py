"""Lets Python find code that a setting names in the working directory, and nothing else there.

Design: docs/design/configuration.md.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar

_is_allowed: ContextVar[bool] = ContextVar("streamq_named_code", default=True)


@contextlib.contextmanager
def importing_named_code() -> Iterator[None]:
    """Let imports in this block find modules of the working directory, after all others.

    A setting that names code, such as ``module:function``, usually names a module of the
    application, which the command ``streamq`` and a program elsewhere do not have on their path.
    The directory is on the path in the block only, and last, so that it hides no library: nothing
    else that stands in the directory is imported.

    Raises:
        ImportError: Nothing may run code that a setting names, see :func:`without_named_code`.
    """
    if not _is_allowed.get():
        raise ImportError("completion runs no code that a setting names")
    try:
        directory = os.getcwd()
    except OSError:  # it was removed
        directory = ""
    if not directory or {"", directory} & set(sys.path):
        yield
        return
    sys.path.append(directory)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(directory)


@contextlib.contextmanager
def without_named_code() -> Iterator[None]:
    """Refuse in this block to import code that a setting names."""
    token = _is_allowed.set(False)
    try:
        yield
    finally:
        _is_allowed.reset(token)
