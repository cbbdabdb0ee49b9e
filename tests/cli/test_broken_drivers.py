"""Commands over a driver of a third party that breaks the contract: one line, and an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from .command import Inside

DRIVER = """
import dataclasses
from tests.core.broken_driver import *

def far(inner):
    return dataclasses.replace(inner.capabilities, cross_process=True)

async def opener(inner):
    return {queue}

class Acme(AcmeDriver):
    opener = opener
    {attributes}
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Install the driver as a distribution of its own, for this test only."""

    def install(module: str, queue: str, attributes: str = "") -> None:
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[streamq.drivers]\nacme = {module}:Acme\n")
        (tmp_path / f"{module}.py").write_text(DRIVER.format(queue=queue, attributes=attributes))
        monkeypatch.syspath_prepend(str(tmp_path))

    return install


@pytest.mark.parametrize(
    ("command", "queue", "message"),
    [
        ("ls", "AcmeQueue(inner, streams=listing(None))", "streams() yielded None"),
        ("ls", "AcmeQueue(inner, streams=returning(None))", "not an asynchronous iterator"),
        ("ls", "AcmeQueue(inner, aclose=raising(KeyError('k')))", "aclose() raised KeyError"),
        ("ls", "None", "Driver.open() returned None"),
        ("tail s", "AcmeQueue(inner, describe=returning(None))", "describe() returned None"),
        ("tail --wait 5 s", "AcmeQueue(inner, read=returning({}))", "read() returned {}"),
        ("delete --yes s", "AcmeQueue(inner, describe=raising(OSError('o')))", "raised OSError"),
        ("sweep", "AcmeQueue(inner, far(inner), sweep=returning('all'))", "sweep() returned 'all'"),
        ("doctor", "AcmeQueue(inner, aclose=raising(KeyError('k')))", "raised KeyError"),
    ],
)
def test_a_command_names_the_driver_and_ends(
    inside: Inside,
    install: object,
    request: pytest.FixtureRequest,
    command: str,
    queue: str,
    message: str,
) -> None:
    """An operator reports the defect to those who can mend it, not to streamq."""
    install(f"acme_{abs(hash(request.node.name))}", queue)  # type: ignore[operator]
    done = inside.run(*command.split(), env={"STREAMQ_BACKEND": "acme"})
    shown = done.out + done.err
    assert done.code != 0
    assert "'acme' broke the contract" in shown.replace("\n", " ")
    assert message in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ("name = None", "calls itself None"),
        ("summary = None", "whose summary is None, not a line of text"),
        ("capabilities = {}", "whose capabilities is {}, not Capabilities"),
        ("settings_type = dict", "whose settings_type is <class 'dict'>, not a class of"),
        ("from streamq.driver import Driver; open = Driver.open", "a driver without open()"),
    ],
)
def test_a_driver_that_lacks_something_is_shown_as_broken(
    inside: Inside, install: object, request: pytest.FixtureRequest, attributes: str, message: str
) -> None:
    """The list of backends is where somebody looks why a backend cannot be selected."""
    install(f"acme_{abs(hash(request.node.name))}", "inner", attributes)  # type: ignore[operator]
    listed = inside.run("backends", env={"COLUMNS": "500"})
    assert listed.code == 0
    assert message in " ".join((listed.out + listed.err).split())
    used = inside.run("ls", env={"STREAMQ_BACKEND": "acme"})
    assert used.code != 0
    assert message in used.err
