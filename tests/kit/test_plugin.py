"""The plugin and the suite from an author's point of view: their own test file, run by pytest."""

from __future__ import annotations

import json

import pytest

from streamq import testing

_HEAD = """
import asyncio
import dataclasses
import pytest
from streamq.memory import MemoryDriver, MemorySettings
from streamq.testing import BackendHarness, DriverSuite, VirtualTimeLoop, needs, requires

class Harness(BackendHarness):
    driver = MemoryDriver

    def settings(self):
        return MemorySettings(store=str(self.directory))
"""
_SUITE = """
class TestIt(DriverSuite):
    harness_type = Harness
    virtual_time = True
"""


@pytest.fixture
def author(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project that has enabled the plugin and nothing else."""
    pytester.makeconftest('pytest_plugins = ["streamq.testing.plugin"]')
    return pytester


def run(author: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in a process of its own, without the configuration of this run."""
    return author.runpytest_subprocess(
        *("-p", "no:cacheprovider", "-W", "error", "--asyncio-mode=strict"),
        *("-o", "asyncio_default_fixture_loop_scope=function", *arguments),
    )


def test_smallest_suite_passes_in_a_project_with_the_defaults(author: pytest.Pytester) -> None:
    """An author has to write only a class of three lines, even in asyncio's strict mode."""
    author.makepyfile(_HEAD + _SUITE)
    found = run(author, "-q", "-k", "append or read")
    assert found.ret == 0, found.stdout.str()
    assert found.parseoutcomes()["passed"] > 30


@pytest.mark.parametrize("processes", ["0", "2"])
def test_report_has_what_was_declared_and_how_it_was_proved(
    author: pytest.Pytester, processes: str
) -> None:
    """The numbers are for a page about the backend, and for a pipeline that compares them."""
    author.makepyfile(_HEAD + _SUITE)
    asked = ("-q", "--streamq-report", "report.json", "-k", "listing_is or streams_lists")
    found = run(author, *asked, "-n", processes)
    found.stdout.fnmatch_lines(
        ["*streamq conformance: memory*", "capability*declared*passed*", "group*passed*", "all*"]
    )
    assert "passed" in found.outlines[-1], "pytest's own last line is the last one"
    data = json.loads((author.path / "report.json").read_text())
    (suite,) = data["suites"]
    assert (data["version"], suite["backend"]) == (1, "memory")
    assert suite["suite"].endswith("::TestIt")
    assert suite["capabilities"]["durable"] == {
        "declared": False,
        "passed": 0,
        "failed": 0,
        "skipped": 0,
    }
    assert suite["groups"]["listing"]["passed"] == suite["totals"]["passed"] > 1
    for check in suite["checks"]:
        assert check.keys() == {
            *("name", "group", "guarantee", "capabilities", "promises", "outcome", "reason"),
        }
        assert {"where", "sentence"} == check["promises"][0].keys()
        assert check["guarantee"].endswith(".")


def test_without_the_options_nothing_is_printed(author: pytest.Pytester) -> None:
    """Most runs follow a small edit, and tables would be in the way."""
    author.makepyfile(_HEAD + _SUITE)
    quiet = run(author, "-k", "lists_one_tenant")
    assert "streamq conformance" not in quiet.stdout.str()
    verbose = run(author, "-v", "-k", "lists_one_tenant")
    assert "streamq conformance: memory" in verbose.stdout.str()


def test_mandatory_hook_that_is_missing_is_a_failure_and_others_are_skipped(
    author: pytest.Pytester,
) -> None:
    """`durable` without a way to restart the backend is a claim, not a capability."""
    author.makepyfile(
        _HEAD
        + """
class Liar(MemoryDriver):
    capabilities = dataclasses.replace(MemoryDriver.capabilities, durable=True)

    @classmethod
    async def open(cls, options, settings):
        queue = await MemoryDriver.open(options, settings)
        queue.capabilities = cls.capabilities
        return queue

class Harness(Harness):
    driver = Liar
"""
        + _SUITE
    )
    found = run(author, "-rs", "-k", "survive_a_restart or slow_backend")
    counts = found.parseoutcomes()
    assert (counts["errors"], counts["skipped"], "passed" in counts) == (1, 1, False)
    found.stdout.fnmatch_lines(
        [
            "*Harness does not supply restart(), without which memory cannot prove 'durable'*",
            "*SKIPPED*Harness does not supply slow()",
        ]
    )


def test_checks_that_are_skipped_for_one_reason_are_one_line(author: pytest.Pytester) -> None:
    """An author has to accept each line; forty that say the same are not read."""
    file = author.makepyfile(_HEAD + _SUITE)
    found = run(author, "-rs", "-k", "TestIt and (server_hung or server_that_hangs or trimmed)")
    lines = [line for line in found.outlines if line.startswith("SKIPPED")]
    reasons = [line.rpartition(": ")[2] for line in lines]
    assert sorted(reasons) == [f"Harness does not supply {hook}()" for hook in ("hang", "trim")]
    assert sum(int(line.split("[")[1].split("]")[0]) for line in lines) > 3
    assert all(f" {file.name}:" in line for line in lines)


def test_authors_add_checks_of_their_own(author: pytest.Pytester) -> None:
    """An author's own check uses the same fixtures, marks and report."""
    author.makepyfile(
        _HEAD
        + _SUITE
        + """
    @requires("fenced")
    @needs("peek")
    async def test_needs_what_is_not_there(self, queue):
        '''It is skipped.'''
        raise AssertionError

    async def test_own(self, queue, stream, other):
        '''It runs in virtual time.'''
        assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
        await asyncio.sleep(3600)

@pytest.mark.asyncio
async def test_elsewhere():
    assert not isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
"""
    )
    found = run(
        author, "--streamq-report", "r.json", "-k", "test_needs_what or test_own or test_elsewhere"
    )
    assert {**found.parseoutcomes(), "deselected": 0} == {
        "passed": 2,
        "skipped": 1,
        "deselected": 0,
    }
    (suite,) = json.loads((author.path / "r.json").read_text())["suites"]
    assert {check["group"] for check in suite["checks"]} == {"own"}


def test_what_a_driver_does_not_promise_is_skipped_before_anything_starts(
    author: pytest.Pytester,
) -> None:
    """A backend may take seconds to start, and a hundred checks may be skipped."""
    author.makepyfile(
        _HEAD
        + """
class Harness(Harness):
    async def start(self):
        raise AssertionError("started")
"""
        + _SUITE
    )
    found = run(author, "-rs", "-k", "survive_a_restart")
    assert {**found.parseoutcomes(), "deselected": 0} == {"skipped": 1, "deselected": 0}
    found.stdout.fnmatch_lines(["*SKIPPED*memory does not declare 'durable'"])


def test_what_a_failed_check_has_begun_ends_with_it(author: pytest.Pytester) -> None:
    """The report must show the failure, not errors of reads whose queue was closed."""
    author.makepyfile(
        _HEAD
        + """
class TestIt(DriverSuite):
    harness_type = Harness

    async def test_own(self, queue, stream):
        '''It fails while it reads.'''
        await self.blocked(self.read(queue, stream))
        raise AssertionError("of the check")
"""
    )
    found = run(author, "-k", "test_own")
    assert {**found.parseoutcomes(), "deselected": 0} == {"failed": 1, "deselected": 0}
    assert "never retrieved" not in found.stdout.str() + found.stderr.str()


def test_suite_without_a_harness_says_what_is_missing(author: pytest.Pytester) -> None:
    """The most common mistake of authors gets a message, not a traceback of fixtures."""
    author.makepyfile(_HEAD + "\nclass TestIt(DriverSuite):\n    pass\n")
    found = run(author, "-k", "lists_one_tenant")
    found.stdout.fnmatch_lines(["*TestIt sets neither harness_type nor a fixture called harness*"])


@pytest.mark.parametrize("marker", ["requires", "needs"])
def test_mistyped_condition_is_refused(marker: str) -> None:
    """A check that is skipped because of a typing error would go unnoticed."""
    with pytest.raises(ValueError, match="durabel"):
        getattr(testing, marker)("durabel")
