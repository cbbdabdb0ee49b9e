"""The documents: examples run, tables are what the code says, links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from streamq.devserver import TemporalDevServer

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/*/README.md")]


def run(script: Path, tmp_path: Path, **variables: str) -> str:
    environment = {**os.environ, "STREAMQ_SQLITE_PATH": str(tmp_path / "streams.db"), **variables}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_plain_example_prints_what_it_says(tmp_path: Path) -> None:
    """The shortest program somebody copies must work as it stands."""
    lines = run(ROOT / "docs/examples/plain.py", tmp_path).splitlines()
    assert lines[:2] == ["1 building", "2 testing"]
    assert "'state': 'END'" in lines[-1]


def test_example_of_two_attempts_tells_one_story(tmp_path: Path) -> None:
    """How a retry looks to a reader is what people copy this for."""
    lines = run(ROOT / "docs/examples/attempts.py", tmp_path).splitlines()
    assert lines == [
        "first attempt: the worker dies",
        "1 attempt 1: checking out",
        "2 attempt 1: building",
        "3 attempt 2: testing",
        "4 attempt 2: done",
    ]


def test_temporal_example_streams_a_poem(tmp_path: Path) -> None:
    """The README's program, on a real Temporal server."""
    with TemporalDevServer() as server:
        script = ROOT / "docs/examples/hello.py"
        output = run(script, tmp_path, STREAMQ_TEMPORAL_ADDRESS=server.address)
    assert "The lighthouse says nothing, and the sea repeats it." in output
    assert output.endswith("Ode to a lighthouse\n")


def test_readme_shows_the_example_that_is_tested() -> None:
    """The program in the README is the very file that runs above."""
    code = (ROOT / "docs/examples/hello.py").read_text().partition('"""\n\n')[2]
    assert code in (ROOT / "README.md").read_text()


def test_fact_tables_are_up_to_date() -> None:
    """Capabilities and settings in the documents are generated from the code."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs/generate.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """A newcomer who follows a link must arrive."""
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target
