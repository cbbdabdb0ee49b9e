"""Runs type checkers over programs that use streamq as it is installed.

``activities.py`` has every shape of a streaming activity, called and read by workflows;
``direct_calls.py`` calls and records them in tests; ``readers.py`` has every reader. Both checkers
work in their strict mode.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAMS = ("activities.py", "direct_calls.py", "readers.py")
BIN = Path(sys.executable).parent
CHECKERS = {
    "mypy": [
        *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
        *(*PROGRAMS, "mistake.py"),
    ],
    "pyright": [
        *(str(BIN / "basedpyright"), "--pythonpath", sys.executable, "--project", "."),
    ],
}
MISTAKE = """
from typing import assert_type

from activities import two_last
from streamq import StreamWriter
from streamq.temporal import ActivityStream, stream_activity
from streamq.testing import Recorded, record

assert_type(stream_activity(two_last, "x"), ActivityStream[int, str])

async def test(numbers: StreamWriter[int]) -> None:
    await two_last("x", stream=numbers)
    await two_last("x", streams=numbers)
    assert_type(await record(two_last, "x"), Recorded[int, str])
"""
MISTAKES = 4


@pytest.mark.parametrize("checker", CHECKERS)
async def test_programs_have_the_types_that_they_assert(checker: str, tmp_path: Path) -> None:
    """Writers do not reach callers, chunks have their type, and nobody must expect gaps.

    The mistakes have to be found: a package that a checker does not see is ``Any``, so that every
    assertion about it would hold.
    """
    for name in PROGRAMS:
        shutil.copy(HERE / name, tmp_path)
    (tmp_path / "mistake.py").write_text(MISTAKE)
    options = {"typeCheckingMode": "strict", "include": ["."]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(options))
    # The cache is outside of the test's directory, so that a later run is quick.
    cache = HERE.parents[1] / ".mypy_cache" / "downstream"
    process = await asyncio.create_subprocess_exec(
        *CHECKERS[checker],
        cwd=tmp_path,
        env={**os.environ, "MYPY_CACHE_DIR": str(cache)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    errors = [line for line in output.splitlines() if " error: " in line or " - error: " in line]
    assert all("mistake.py" in each for each in errors), output
    assert len(errors) == MISTAKES, output
    assert "ActivityStream[Token, int]" in output
    assert "Recorded[Token, int]" in output
