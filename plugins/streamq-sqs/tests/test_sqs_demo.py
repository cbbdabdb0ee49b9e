"""The demo: by one variable, with the emulator that the package brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SECONDS = 60


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the demo as somebody does who has no account."""
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


def test_one_variable_is_all_it_takes() -> None:
    """Nobody makes an account to see what this is; a retry is told here, too."""
    done = demo("--json", "--fail-once")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["backend"], summary["state"], summary["attempts"]) == ("sqs", "END", 2)
    assert summary["page"] is None


def test_delivery_that_would_take_the_chunks_away_is_refused() -> None:
    """Two readers of one queue would get half of the text each."""
    done = demo("--delivery", "poll")
    assert done.returncode != 0
    assert "--delivery none" in done.stderr
