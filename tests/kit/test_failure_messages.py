"""A failure of the kit, as the author of a driver sees it: compared word for word."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest

from streamq import testing
from streamq.testing import BrokenPromiseError
from streamq.testing._await_stacks import await_stack
from streamq.testing._shown import shown
from streamq.testing.checks._deadlines import within
from streamq.testing.checks._differences import difference
from streamq.testing.checks._verdicts import refuses, same_records

_DRIVER = '''
import asyncio
import dataclasses
from streamq.driver import BackendUnavailableError, Entry, fenced_error
from streamq.memory import MemoryDriver, MemorySettings, _MemoryQueue, _stores
from streamq.testing import BackendHarness, DriverSuite

class Sound(_MemoryQueue):
    pass

class Repeats(Sound):
    """Stores what was stored already."""

    appends = 0

    async def append(self, stream, entries, *, ttl=None):
        self.appends += len(entries)
        again = [dataclasses.replace(e, index=e.index + self.appends) for e in entries]
        await super().append(stream, again, ttl=ttl)

class Hangs(Sound):
    """Waits for an answer that does not come."""

    async def append(self, stream, entries, *, ttl=None):
        await self.answered(entries)

    async def answered(self, entries):
        await asyncio.Event().wait()

class Swallows(Sound):
    """Goes on after a cancellation."""

    async def aclose(self):
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            pass
        await super().aclose()

class Polls(Sound):
    """Looks for its own end again and again."""

    async def aclose(self):
        for _ in range(1_000):
            await asyncio.sleep(0)
        await super().aclose()

class Breaks(Sound):
    """Does not translate an error."""

    async def append(self, stream, entries, *, ttl=None):
        {}["no such host"]

class Accepts(Sound):
    """Takes what it should refuse."""

    async def append(self, stream, entries, *, ttl=None):
        if entries[0].epoch == 1 and entries[0].index:
            return
        await super().append(stream, entries, ttl=ttl)

class Remembers(Sound):
    """Refuses what is older than the newest entry that it remembers."""

    newest = 0

    async def append(self, stream, entries, *, ttl=None):
        if entries[0].epoch < self.newest:
            raise fenced_error("memory", stream, epoch=entries[0].epoch, newest=self.newest)
        self.newest = entries[0].epoch
        await super().append(stream, entries, ttl=ttl)

class Closed(Sound):
    """Cannot be opened."""

    def __init__(self, *args):
        raise BackendUnavailableError("no route to acme:7000", backend="memory")

def suite(queue):
    class Driver(MemoryDriver):
        @classmethod
        async def open(cls, options, settings):
            return queue(options, settings, _stores.get(settings.store))

    class Harness(BackendHarness):
        driver = Driver
        check_seconds = 20.0

        def settings(self):
            return MemorySettings(store=str(self.directory))

    members = {"harness_type": Harness, "virtual_time": True}
    return type(f"Test{queue.__name__}", (DriverSuite,), members)
'''
_CHECKS = {
    "Repeats": "repeated_append_is_skipped",
    "Hangs": "many_entries_in_one_append",
    "Swallows": "aclose_can_be_cancelled_at_any_await_and_finished_later",
    "Polls": "aclose_can_be_cancelled_at_any_await_and_finished_later",
    "Breaks": "indexes_may_have_gaps",
    "Accepts": "stale_epoch_is_fenced",
    "Remembers": "append_after_another_connection_has_deleted_begins_anew[older epoch]",
    "Closed": "delete_is_idempotent",
}
_EXPECTED = Path(__file__).with_name("failure_messages.txt")


@pytest.fixture
def author(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project whose drivers have one fault each."""
    pytester.makeconftest('pytest_plugins = ["streamq.testing.plugin"]')
    suites = "\n".join(f"Test{name} = suite({name})" for name in _CHECKS)
    pytester.makepyfile(test_acme=f"{_DRIVER}\n{suites}\n")
    return pytester


def test_author_gets_sentence_expectation_observation_and_cause(author: pytest.Pytester) -> None:
    """What is in the file is all that an author has to go by; read it as one."""
    nodes = [f"test_acme.py::Test{name}::test_{check}" for name, check in _CHECKS.items()]
    found = author.runpytest_subprocess(
        *("-p", "no:cacheprovider", "--tb=short", "--asyncio-mode=auto", "--show-capture=no"),
        *("-o", "asyncio_default_fixture_loop_scope=function", *nodes),
    )
    assert found.parseoutcomes() == {"failed": len(nodes) - 1, "errors": 1}
    found.stdout.fnmatch_lines(["*await queue.append(stream, entries(?data))"])  # of the check
    text = "\n".join(_normalised(found.outlines))
    (author.path / "new.txt").write_text(text)
    assert text == _EXPECTED.read_text(), (
        f"if the new text is better: cp {author.path}/new.txt {_EXPECTED}"
    )


def _normalised(lines: list[str]) -> list[str]:
    """Return what follows the tracebacks, without what differs from run to run."""
    begin = next(at for at, line in enumerate(lines) if "= ERRORS =" in line)
    end = next(at for at, line in enumerate(lines) if "short test summary" in line)
    kept = []
    is_section = False
    for line in lines[begin:end]:
        is_section = line.startswith("---") or (is_section and not line.startswith(("___", "===")))
        if not (is_section or line.startswith(("E ", "___", "==="))):
            continue
        shorter = re.sub(r"\bt-[0-9a-f]{12}/s-[0-9a-f]{32}", "t/s", line)
        shorter = re.sub(r"\S*/((?:[\w.-]+)\.py):\d+", r"\1:N", shorter)
        shorter = re.sub(r"test_acme\.py:\d+", "test_acme.py:N", shorter)
        shorter = re.sub(r"\b[\d,]+ times\b", "many times", shorter)
        kept.append(re.sub(r"([=_-]){3,}", r"\1\1\1", shorter).rstrip())
    return [*kept, ""]


def test_checks_fail_with_words_only() -> None:
    """A bare assertion leaves the author to guess; a bare time-out says not even which call."""
    folder = Path(testing.__file__).parent
    modules = {*folder.glob("checks/*.py"), folder / "_cancellation.py"}
    found = []
    for path in modules:
        for node in ast.walk(ast.parse(path.read_text())):
            is_bare = isinstance(node, ast.Assert) and path.name != "_deadlines.py"
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called == "asyncio.timeout" and path.name == "_deadlines.py":
                continue
            if is_bare or called in ("pytest.raises", "asyncio.timeout", "asyncio.wait_for"):
                found.append(f"{path.name}:{getattr(node, 'lineno', 0)}")
    assert found == []


@pytest.mark.parametrize(
    ("seen", "words", "cause"),
    [
        ([], "nothing came, and 3 items should", "another place"),
        ([b"a", b"b"], "the last 1 item is missing: b'c'", "end of the stream"),
        ([b"b", b"c"], "the first 1 item is missing: b'a'", "began"),
        ([b"a", b"c"], "missing: b'b', between others", "a part of its entries"),
        ([b"a", b"b", b"a", b"c"], "repeated: b'a'", "stored again"),
        ([b"a", b"c", b"b"], "another order, from place 2: b'c' instead of b'b'", "sorted"),
        ([b"a", b"b", b"c", b"x"], "not expected: b'x'", "another stream"),
        ([b"a", b"x", b"c"], "they differ from place 2 on: added: b'x', missing: b'b'", "altered"),
    ],
)
def test_kind_of_difference_suggests_the_cause(seen: list[bytes], words: str, cause: str) -> None:
    """The same check fails for many reasons, which its values tell apart."""
    said, guess = difference(seen, [b"a", b"b", b"c"])
    assert words in said
    assert cause in guess


def test_records_that_are_the_same_pass_whatever_sequence_they_are_in() -> None:
    """A tuple of records is as good as a list."""
    same_records((b"a",), [b"a"], "records")


def test_large_values_are_cut() -> None:
    """A message of megabytes is none."""
    assert shown(b"x" * 5_000) == "b'xxxxxxxxxxxxxxxxxxxxxxxx'... (5,000 bytes)"
    assert shown([*range(1_000)]).endswith("..., 997, 998, 999] (1,000 items)")
    assert len(shown("é" * 10_000)) < 300
    assert "\x1b" not in shown(ValueError("\x1b[31m"))


async def test_deadline_names_the_place_in_a_task_that_is_awaited() -> None:
    """A check often waits for a task, and the task for the call that hangs."""

    async def inner() -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(inner())
    with pytest.raises(BrokenPromiseError, match=r"inner: await asyncio\.Event\(\)\.wait\(\)"):
        async with within(0.01, "a task"):
            await task


async def test_stack_leads_into_asynchronous_generators() -> None:
    """A listing is one, and hangs like any other call."""

    async def numbers():  # type: ignore[no-untyped-def]
        yield 1
        await asyncio.Event().wait()

    async def count() -> None:
        async for _ in numbers():  # type: ignore[no-untyped-call]
            pass

    task = asyncio.create_task(count())
    await asyncio.sleep(0)
    names = [place.function.rpartition(".")[2] for place in await_stack(task)]
    task.cancel()
    assert names == ["count", "numbers", "wait"]


def test_refusal_of_another_kind_shows_the_error_and_keeps_it_as_the_cause() -> None:
    """The error that came instead leads to the mistake."""
    with (
        pytest.raises(BrokenPromiseError) as caught,
        refuses(KeyError, "a call", cause="a reason"),
    ):
        raise ValueError("of the driver")
    assert "expected: it raises KeyError\n  seen:     ValueError: of the driver" in str(
        caught.value
    )
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.cause == "a reason"
