"""The programs on the page about the kit run unchanged."""

from __future__ import annotations

import ast
import asyncio
import re
import textwrap
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streamq import BackendUnavailableError, testing
from streamq.devserver import DevServer
from streamq.driver import START, AnyDriver, DriverSettings, Entry, QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.testing import BackendHarness, FaultyQueue, new_stream
from streamq.testing._contract import is_mandatory, objects
from streamq.testing._harness import HOOKS
from streamq.testing.checks import DeclarationChecks

CONTRACT = Path(__file__).parents[2] / "docs/contract.md"
PAGE = Path(__file__).parents[2] / "docs/conformance.md"
BLOCKS: list[str] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)

_ACME = """
from streamq.memory import MemoryDriver, MemorySettings

class AcmeDriver(MemoryDriver):
    pass

def AcmeSettings(path):
    return MemorySettings(store=str(path))
"""


def block_with(text: str) -> str:
    """Return the only program on the page that contains a text."""
    (found,) = [block for block in BLOCKS if text in block]
    return found


def test_complete_test_file_is_complete(pytester: pytest.Pytester) -> None:
    """The first program on the page, copied for another driver, passes."""
    pytester.makepyfile(acme=_ACME, test_acme=BLOCKS[0])
    pytester.makeconftest(BLOCKS[1])
    found = pytester.runpytest_subprocess(
        *("-p", "no:cacheprovider", "-q", "-k", "bytes or order or takeover"),
        *("-o", "asyncio_default_fixture_loop_scope=function"),
    )
    assert found.ret == 0, found.stdout.str()
    assert found.parseoutcomes()["passed"] > 3


async def test_harness_of_a_server_is_complete(tmp_path: Path) -> None:
    """An author copies it, and has every hook that does not need to know the backend."""

    class AcmeServer(DevServer):
        backend = "acme"

        def command(self, data_dir: Path) -> Sequence[str]:
            return []

        def answers(self, log: Path) -> bool:
            return False

    block = block_with("ServerHarness[")
    names: dict[str, Any] = {"__name__": "test_acme", "AcmeServer": AcmeServer, "Path": Path}
    names |= {"Iterator": Iterator, "pytest": pytest, "AcmeDriver": MemoryDriver, **vars(testing)}
    names["AcmeSettings"] = lambda **given: given
    exec(compile(block, "test_acme.py", "exec", dont_inherit=True), names)
    harness = names["AcmeHarness"](tmp_path, AcmeServer(port=1))
    async with harness:
        assert harness.settings()["url"] == f"acme://127.0.0.1:{harness.proxy.port}"
    stated = re.findall(r"`(\w+)`", re.findall(r"has the hooks\n(.*?)\. Left", PAGE.read_text())[0])
    assert {hook for hook in HOOKS if harness.supplies(hook)} == {*stated}


async def test_script_of_faults_does_what_the_page_says() -> None:
    """Every assertion of the example holds."""
    options = QueueOptions(ttl=timedelta(minutes=1))
    inner = await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex))
    queue, stream = FaultyQueue(inner), new_stream()
    lines = block_with("faulty.script").splitlines()
    names = {**vars(testing), "queue": queue}
    exec("\n".join(lines[:3]), names)
    faulty = names["faulty"]
    entries = [Entry(1, 0, b"a"), Entry(1, 1, b"b")]
    await faulty.append(stream, entries[:1])
    for _ in range(2):
        with pytest.raises(BackendUnavailableError):
            await faulty.append(stream, entries)
    exec("\n".join(lines[3:]), names)
    with pytest.raises(BackendUnavailableError):
        await faulty.read(stream, START, max_records=1, max_bytes=1, max_wait=1.0)
    assert await faulty.read(stream, START, max_records=1, max_bytes=1, max_wait=0.0)
    await faulty.aclose()


def test_hour_of_silence_returns_at_once() -> None:
    """The example of virtual time on the page runs."""
    exec(block_with("an_hour_of_silence"), {**vars(testing), "asyncio": asyncio})


async def test_skeleton_of_the_contract_page_is_a_driver() -> None:
    """An author copies it, and fills in the calls one after the other."""
    [skeleton] = re.findall(r"```python\n(from .*?)```", CONTRACT.read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {"__name__": "acme_streamq"}
    # Without this, the skeleton would be compiled with the future imports of this module.
    exec(compile(skeleton, "acme_streamq.py", "exec", dont_inherit=True), names)
    driver = names["AcmeDriver"]
    settings = driver.settings_type(password="secret")
    assert "secret" not in repr(settings)
    queue = await driver.open(QueueOptions(ttl=timedelta(minutes=1)), settings)
    checks = DeclarationChecks()
    checks.check_seconds = 10.0
    await checks.test_driver_describes_itself(_Harness(driver, settings))
    assert queue.capabilities is driver.capabilities
    await queue.aclose()


class _Harness(BackendHarness):
    """Leads to nothing."""

    def __init__(self, driver: AnyDriver, settings: DriverSettings) -> None:
        super().__init__(Path())
        type(self).driver = driver
        self._settings = settings

    def settings(self) -> DriverSettings:
        return self._settings


def test_contract_page_has_every_mandatory_member() -> None:
    """What is on no page is learned from an AttributeError."""
    page = CONTRACT.read_text()
    for where in filter(is_mandatory, objects()):
        name = where.rpartition(".")[2]
        assert f"#### {where} (must)" in page or f"| `{name}` | **must** |" in page, where


@pytest.mark.parametrize("block", BLOCKS)
def test_every_program_is_python(block: str) -> None:
    """An example with a typing error misleads its readers."""
    ast.parse(textwrap.dedent(block))
