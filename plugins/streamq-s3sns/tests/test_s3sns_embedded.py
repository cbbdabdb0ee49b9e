"""The demo, by environment alone."""

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
    """Run it in a shell with these variables."""
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
def test_what_is_configured_is_used_instead_of_an_emulator(setting: dict[str, str]) -> None:
    """Who has set a bucket or a server wants to see that one."""
    assert S3SnsDriver.embedded(S3SnsSettings.model_validate(setting)) is None


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"STREAMQ_S3SNS_REGION": "eu-west-1"},
        {"AWS_DEFAULT_REGION": "eu-west-1"},
        {"AWS_ENDPOINT_URL": ELSEWHERE},
        {"AWS_ENDPOINT_URL_S3": ELSEWHERE, "AWS_ENDPOINT_URL_SNS": ELSEWHERE},
    ],
    ids=lambda variables: "-".join(variables) or "none",
)
def test_demo_runs_with_nothing_but_the_name_of_the_backend(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    """The first thing that anybody tries, in a shell that may lead to AWS or to an emulator."""
    ended = demo(tmp_path, variables)
    assert ended.returncode == 0, ended.stderr
    # By notifications too: where the topic is elsewhere, readers are told that they poll.
    assert "poll" not in ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["backend"], summary["state"]) == ("s3sns", "END")
    assert summary["chunks"] > 100


def test_profile_that_does_not_exist_is_told(tmp_path: Path) -> None:
    """The variable outlives the file that it was about."""
    ended = demo(tmp_path, {"AWS_PROFILE": "gone", "AWS_CONFIG_FILE": str(tmp_path / "none")})
    assert ended.returncode
    assert "Traceback" not in ended.stderr
    assert "AWS_PROFILE" in ended.stderr
