"""The demo runs with one variable, on the emulator that the package installs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SECONDS = 60


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as a user without an account does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "streamq.cli", "demo", "--pace", "0", *options],
        check=False,
        env=environment | {"STREAMQ_BACKEND": "sqs"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def test_one_variable_is_enough() -> None:
    """Users try streamq before they create an account; the demo also shows a retry."""
    done = demo("--json", "--fail-once")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["backend"], summary["state"], summary["attempts"]) == ("sqs", "END", 2)
    assert summary["page"] is None


def test_delivery_that_would_be_a_second_reader_is_refused() -> None:
    """Two readers of one queue would get half of the chunks each."""
    done = demo("--delivery", "poll")
    assert done.returncode != 0
    assert "--delivery none" in done.stderr
