"""The emulator that the demo starts, configured by environment variables alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from streamq_s3sns import S3SnsDriver, S3SnsSettings

ELSEWHERE = "http://127.0.0.1:9"


def demo(directory: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the demo in a shell with these variables."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS", "STREAMQ"))
    }
    environment |= {"STREAMQ_BACKEND": "s3sns", "AWS_EC2_METADATA_DISABLED": "true"}
    return subprocess.run(
        [sys.executable, "-m", "streamq.cli", "demo", "--pace", "0", "--json"],
        env=environment | variables,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("setting", [{"bucket": "mine"}, {"endpoint_url": ELSEWHERE}])
def test_configured_bucket_or_server_replaces_the_emulator(setting: dict[str, str]) -> None:
    """A user who has configured a bucket or a server wants to see that one."""
    assert S3SnsDriver.embedded(S3SnsSettings.model_validate(setting)) is None


@pytest.mark.parametrize(
    "variables",
    [
        pytest.param({}, marks=pytest.mark.full),
        pytest.param({"STREAMQ_S3SNS_REGION": "eu-west-1"}, marks=pytest.mark.full),
        pytest.param({"AWS_DEFAULT_REGION": "eu-west-1"}, marks=pytest.mark.full),
        pytest.param({"AWS_ENDPOINT_URL": ELSEWHERE}, marks=pytest.mark.full),
        {"AWS_ENDPOINT_URL_S3": ELSEWHERE, "AWS_ENDPOINT_URL_SNS": ELSEWHERE},
    ],
    ids=lambda variables: "-".join(variables) or "none",
)
def test_demo_runs_with_nothing_but_the_name_of_the_backend(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    """It is the first thing that users try, in a shell that may have variables for AWS."""
    ended = demo(tmp_path, variables)
    assert ended.returncode == 0, ended.stderr
    # With notifications: if the topic was in another region, the log would say that readers poll.
    assert "poll" not in ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["backend"], summary["state"]) == ("s3sns", "END")
    assert summary["chunks"] > 100


def test_missing_profile_is_reported(tmp_path: Path) -> None:
    """The variable often outlives the file with the profile."""
    ended = demo(tmp_path, {"AWS_PROFILE": "gone", "AWS_CONFIG_FILE": str(tmp_path / "none")})
    assert ended.returncode
    assert "Traceback" not in ended.stderr
    assert "AWS_PROFILE" in ended.stderr
