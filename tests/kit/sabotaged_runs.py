"""Runs suites of sabotaged drivers in a process of its own, and returns the checks that failed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

OPTIONS = (
    *("-n", "0"),
    # Print each check by name, to show the last one of a run that hangs.
    *("-v", "-p", "no:cacheprovider", "-p", "no:randomly", "--no-header", "--tb=no", "-r", "N"),
    # pytest needs longer to explain a difference than to find it.
    *("--assert=plain", "--timeout=30"),
    # Only the checks have to report what a sabotaged driver leaves behind.
    *("-W", "ignore", "-p", "no:unraisableexception", "-p", "no:threadexception"),
    *("-p", "no:logging"),
)
_DEADLINE_SECONDS = 240


def failed_checks(
    source: Path, root: Path, directory: Path, checks: Iterable[str]
) -> dict[str, set[str]]:
    """Run some checks of all suites in a file.

    Args:
        source: The file.
        root: Where pytest runs.
        directory: An empty directory.
        checks: Names of checks, without ``test_``.

    Returns:
        The names of the checks that failed, by the name of the suite without ``Test``.
    """
    report = directory / "report.json"
    command = [sys.executable, "-m", "pytest", *OPTIONS, "--streamq-report", str(report)]
    command += ["--basetemp", str(directory / "temp"), "-k", " or ".join(checks), str(source)]
    ran = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=_DEADLINE_SECONDS, check=False
    )
    assert ran.returncode in (0, 1), (ran.stdout + ran.stderr)[-5_000:]
    found: defaultdict[str, set[str]] = defaultdict(set)
    for suite in json.loads(report.read_text())["suites"]:
        failed = found[suite["suite"].partition("::Test")[2]]
        for check in suite["checks"]:
            if check["outcome"] == "failed":
                failed.add(check["name"].removeprefix("test_").partition("[")[0])
    return found
