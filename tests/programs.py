"""Finds the programs that tests run; skips, or fails, where one is missing."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

REQUIRED = "REQUIRE_PROGRAMS"
"""Set to 1, a missing program is a failure: ``.ci/run`` does so, after it has installed them."""


def program(*names: str, package: str) -> str:
    """Return the path of the first program that is installed.

    Args:
        names: Names of the program on PATH, in order of preference.
        package: Debian's package that brings it.
    """
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        missing(f"none of {', '.join(names)} is on PATH; install Debian's {package}")
    return found


def missing(reason: str) -> NoReturn:
    """Skip the running test, or fail it where every program is required."""
    if os.environ.get(REQUIRED) == "1":
        pytest.fail(f"{reason}; {REQUIRED}=1 allows no skip")
    pytest.skip(reason)
