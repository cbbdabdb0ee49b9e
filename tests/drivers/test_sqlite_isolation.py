"""The rights of the page about tenants: enough for a tenant, and none for its neighbours."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.isolation import code_blocks, written_stream

from streamq.driver import QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings

ROOT = Path(__file__).parents[2]
PLACE = "/var/lib/streamq"
USERS = {"acme": 41_001, "globex": 41_002}
"""Users need not be known by name."""


@pytest.fixture
def place() -> Iterator[Path]:
    """Return a directory that other users can reach, unlike those of pytest."""
    if os.geteuid() != 0:
        pytest.skip("only root can act as two users")
    directory = Path(tempfile.mkdtemp(prefix="streamq-test-tenants-"))
    directory.chmod(0o711)
    try:
        yield directory / "streamq"
    finally:
        shutil.rmtree(directory)


def test_tenant_uses_its_own_file_and_no_other(place: Path) -> None:
    """Files are for their owner only, also if their names are known."""
    commands, environment = code_blocks("sqlite")
    files = {}
    for tenant, uid in USERS.items():
        script = commands.replace("-o acme -g acme", f"-o {uid} -g {uid}")
        script = script.replace(PLACE, str(place)).replace("acme", tenant)
        subprocess.run(["/bin/sh", "-ec", script], check=True)
        variables = dict(line.split("=", 1) for line in environment.splitlines())
        path = variables["STREAMQ_SQLITE_PATH"].replace(PLACE, str(place))
        files[tenant] = Path(path.replace("acme", tenant))
    asyncio.run(_written(files["globex"]))
    for each in files["globex"].parent.iterdir():
        os.chown(each, USERS["globex"], USERS["globex"])
    command = [sys.executable, "-m", "tests.isolation.as_user", str(USERS["acme"])]
    command += [str(files["acme"]), str(files["globex"])]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr


async def _written(path: Path) -> None:
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with await SqliteDriver.open(options, SqliteSettings(path=path)) as queue:
        await written_stream(queue, "globex")
