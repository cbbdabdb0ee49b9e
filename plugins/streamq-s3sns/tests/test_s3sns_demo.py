"""The demo, by environment alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from streamq_s3sns import S3SnsDriver, S3SnsSettings


def test_configured_bucket_is_used_instead_of_an_emulator() -> None:
    """Who has set a bucket wants to see that one."""
    assert S3SnsDriver.embedded(S3SnsSettings(bucket="mine")) is None


def test_demo_runs_with_nothing_but_the_name_of_the_backend(tmp_path: Path) -> None:
    """The first thing that anybody tries."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS", "STREAMQ"))
    }
    ended = subprocess.run(
        [sys.executable, "-m", "streamq.cli", "demo", "--pace", "0", "--json"],
        env=environment | {"STREAMQ_BACKEND": "s3sns", "AWS_EC2_METADATA_DISABLED": "true"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["backend"], summary["state"]) == ("s3sns", "END")
    assert summary["chunks"] > 100
