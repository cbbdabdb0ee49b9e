"""Imports the kits in processes that lack what the other kit needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import streamq.testing
from streamq.testing import applications

WITHOUT_TEMPORAL = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "temporalio":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Nowhere())
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["streamq.testing", "streamq.testing.memory"])
def test_authors_of_drivers_do_without_temporal(module: str) -> None:
    """A driver's suite neither needs the SDK nor waits until it is imported."""
    assert run(f"{WITHOUT_TEMPORAL}\nimport {module}\nprint('imported')") == "imported"
    assert run(f"import sys, {module}; print('temporalio' in sys.modules)") == "False"


def test_missing_sdk_is_named_with_the_remedy() -> None:
    """The author of an activity learns which extra is missing."""
    code = f"""{WITHOUT_TEMPORAL}
try:
    from streamq.testing import record
except ImportError as exc:
    print(exc)
"""
    assert "streamq.testing.record needs Temporal's SDK" in run(code)
    assert "streamq[temporal]" in run(code)


def test_all_names_are_offered_by_the_package() -> None:
    """One place to import from; a name that is forgotten there cannot be found."""
    assert set(applications.__all__) <= set(streamq.testing.__all__)
    for name in applications.__all__:
        assert getattr(streamq.testing, name) is getattr(applications, name)
    with pytest.raises(AttributeError, match="no attribute 'recrod'"):
        _ = streamq.testing.recrod  # type: ignore[attr-defined]
