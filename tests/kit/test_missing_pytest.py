"""The kit in an environment without pytest."""

from __future__ import annotations

import subprocess
import sys


def test_kit_without_its_extra_says_what_to_install() -> None:
    """An author has streamq[plugin], whose command works, and asks for help(streamq.testing)."""
    code = "import sys; sys.modules['pytest'] = None; import streamq.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: streamq.testing needs pytest; run: pip install 'streamq[testing]'"
    )
