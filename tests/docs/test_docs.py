"""The documents: examples run, and tables state what the code does."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamq import installed_drivers
from streamq.devserver import TemporalDevServer, free_port
from streamq_s3sns import S3SnsDriver, S3SnsSettings

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"


@pytest.fixture(scope="module")
def temporal_address() -> Iterator[str]:
    with TemporalDevServer() as server:
        yield server.address


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
    """The shortest program that people copy must work as it stands."""
    lines = run(EXAMPLES / "plain.py", tmp_path).splitlines()
    assert lines[:2] == ["1 building", "2 testing"]
    assert "'state': 'END'" in lines[-1]


def test_example_of_two_attempts_tells_one_story(tmp_path: Path) -> None:
    """People copy this program to see how a retry looks to a reader."""
    lines = run(EXAMPLES / "attempts.py", tmp_path).splitlines()
    assert lines == [
        "first attempt: the worker dies",
        "1 attempt 1: checking out",
        "2 attempt 1: building",
        "3 attempt 2: testing",
        "4 attempt 2: done",
    ]


def test_example_of_many_streams_reads_those_to_come(tmp_path: Path) -> None:
    """People copy this loop for a chat, whose turns have a stream each."""
    lines = run(EXAMPLES / "many_streams.py", tmp_path).splitlines()
    assert sorted(lines[:3]) == [
        "1: There is a lighthouse. (END)",
        "2: It says nothing. (END)",
        "3: And the sea repeats it. (END)",
    ]
    assert lines[3:] == ["END, attempt 1: And the sea repeats it. "]


@pytest.mark.parametrize("example", ["plain.py", "attempts.py", "many_streams.py"])
def test_examples_without_temporal_run_again(tmp_path: Path, example: str) -> None:
    """People run a program twice, and a stream ends only once."""
    first, second = (run(EXAMPLES / example, tmp_path) for _ in range(2))
    assert first.splitlines()[-1] == second.splitlines()[-1]


def test_generic_workflow_runs_as_its_page_says(tmp_path: Path, temporal_address: str) -> None:
    """People copy the page's commands word for word, beside the worker that it names."""
    page = (ROOT / "docs/temporal.md").read_text()
    [commands] = re.findall(r"```console\n(temporal workflow start.*?)```", page, re.DOTALL)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "STREAMQ_SQLITE_PATH": str(tmp_path / "streams.db"),
        "STREAMQ_TEMPORAL_ADDRESS": temporal_address,
        "TEMPORAL_ADDRESS": temporal_address,
    }
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "worker.py")],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        try:
            assert worker.stdout is not None
            assert "task queue poems" in worker.stdout.readline()
            done = subprocess.run(
                ["/bin/sh", "-ec", commands],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert "poem-7" in done.stdout
            assert "Ode to a lighthouse" in done.stdout
        finally:
            worker.send_signal(signal.SIGINT)
        assert worker.wait(20) == 0


def test_temporal_example_streams_a_poem(tmp_path: Path, temporal_address: str) -> None:
    """The README's program, on a real Temporal server."""
    output = run(EXAMPLES / "hello.py", tmp_path, STREAMQ_TEMPORAL_ADDRESS=temporal_address)
    assert "The lighthouse says nothing, and the sea repeats it." in output
    assert output.endswith("Ode to a lighthouse\n")


@pytest.mark.parametrize(
    ("example", "printed"),
    [
        (
            "thread",
            "tape 1: Good morning.|tape 2: The harbour is closed.|tape 3: Go back.|3 sentences",
        ),
        ("generators", "step 1|step 2|step 3|rung 1|rung 2|rung 3|the top"),
        ("methods", "You asked about the sea. Nobody knows. |answered by oracle-1"),
        ("standalone", "You asked about the sea. It is deep. |8 words"),
        (
            "a2a_agent",
            "|TASK_STATE_WORKING|The lighthouse says nothing, and the sea repeats it. "
            "|TASK_STATE_COMPLETED",
        ),
        (
            "topics",
            "log: look it up|log: write it down|END: The sea? It is deep. ",
        ),
        ("models", "Pier: 181.00|Dune: 140.00|cheapest: Dune"),
        (
            "in_workflow",
            "hull of the Argo inspected|engine of the Argo inspected|radio of the Argo inspected"
            "|END|seaworthy",
        ),
    ],
)
def test_every_way_to_write_an_activity_has_a_program_that_runs(
    tmp_path: Path, temporal_address: str, example: str, printed: str
) -> None:
    """The author of such an activity copies the program as it stands."""
    script = EXAMPLES / f"{example}.py"
    port = str(free_port())
    output = run(script, tmp_path, STREAMQ_TEMPORAL_ADDRESS=temporal_address, PORT=port)
    assert output.splitlines() == printed.split("|")


def test_encrypted_example_stores_nothing_readable(tmp_path: Path, temporal_address: str) -> None:
    """Its reader gets the letter, while neither records nor file hold a word of it."""
    script = EXAMPLES / "encrypted.py"
    lines = run(script, tmp_path, STREAMQ_TEMPORAL_ADDRESS=temporal_address).splitlines()
    letter = ["Dear Ada,", "the results are here,", "and all is well.", "send to Ada"]
    assert lines[:4] == letter
    assert len(lines) > 4
    assert all(re.fullmatch(r"stored: \d+ bytes, nothing readable", line) for line in lines[4:])
    files = b"".join(each.read_bytes() for each in tmp_path.glob("streams.db*"))
    assert b"letter-" in files  # the stream's name, which says that this is the right file
    assert not any(line.encode() in files for line in letter)


def test_film_beside_the_stream_is_for_those_who_may_read_it(
    tmp_path: Path, temporal_address: str
) -> None:
    """The route that people copy opens no object without the right to its stream."""
    embedded = S3SnsDriver.embedded(S3SnsSettings.model_construct())
    assert embedded is not None
    with embedded as variables:
        output = run(
            EXAMPLES / "hand_over.py",
            tmp_path,
            **variables,
            STREAMQ_BACKEND="s3sns",
            STREAMQ_TEMPORAL_ADDRESS=temporal_address,
        )
    assert output.splitlines() == [
        "rendering",
        "Argo.mp4, 15000000 bytes",
        "without the token: 401",
        'with it: 200 attachment; filename="Argo.mp4"',
        "15000000 bytes, as uploaded",
        "another id: 404",
        "Argo is ready",
    ]


def test_every_example_is_run() -> None:
    """A program that no test runs soon fails for the reader who copies it."""
    elsewhere = (
        "docs/test_a2a_examples.py",
        "docs/test_a2a_sdk_handler.py",
        "gateway/test_documented_clients.py",
        "temporal/a2a/test_js_client.py",
    )
    files = [Path(__file__), *(ROOT / "tests" / each for each in elsewhere)]
    tests = "".join(each.read_text() for each in files)
    missing = [
        each.name
        for each in (*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.mjs"))
        if f'"{each.stem}"' not in tests and each.name not in tests
    ]
    assert not missing


def test_readme_shows_the_example_that_is_tested() -> None:
    """The program in the README is the very file that runs above."""
    code = (EXAMPLES / "hello.py").read_text().partition('"""\n\n')[2]
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


def test_settings_of_every_backend_are_listed() -> None:
    """An operator looks for a backend's variables on one page, and misses none."""
    page = (ROOT / "docs/configuration.md").read_text()
    listed = {name for name in installed_drivers() if f"<!-- begin settings {name} -->" in page}
    assert listed == set(installed_drivers())
