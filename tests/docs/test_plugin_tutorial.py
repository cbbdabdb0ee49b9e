"""The tutorial for authors of drivers, done as it says: from the command to a green kit."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.scaffold import ROOT, TOOLS, Installation, pasted, run, style_and_types

PAGE = (ROOT / "docs/plugin-tutorial.md").read_text()
BLOCKS: list[tuple[str, str]] = re.findall(r"```(\w+)\n(.*?)```", PAGE, flags=re.DOTALL)
pytestmark = pytest.mark.timeout(400)

MOST_LINES = 400
PROMISED = (
    *("replay", "fan_out", "ordered", "fenced", "durable"),
    *("cross_process", "expires", "erases"),
)


def steps(kind: str) -> list[str]:
    """Return the page's blocks of one kind, in order."""
    return [text for each, text in BLOCKS if each == kind]


def commands() -> Iterator[list[str]]:
    """Yield the page's commands."""
    for block in steps("console"):
        for line in block.splitlines():
            yield shlex.split(line.removeprefix("$ "))


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.make(tmp_path_factory.mktemp("tutorial") / "installation")


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Path:
    """The driver as it is at the end; on the way, each step fails where the page says."""
    place = tmp_path_factory.mktemp("tutorial")
    (new,) = [each for each in commands() if each[:3] == ["streamq", "plugin", "new"]]
    installation.streamq(*new[1:], cwd=place)
    plugin = place / "streamq-folder"
    installation.install("-e", plugin)
    generated = lines_of_code(plugin)
    (failure,) = steps("text")
    assert failure.strip() in installation.pytest("-x", cwd=plugin, expected=[1])
    for block in steps("python"):
        file = plugin / block.partition("\n")[0].removeprefix("# ")
        file.write_text(pasted(file.read_text(), block))
        if "def append(" in block:
            seen = installation.pytest("-x", cwd=plugin, expected=[1])
            assert "write FolderQueue.read in" in seen
    run(TOOLS / "ruff", "check", "--fix", "--no-cache", cwd=plugin)
    run(TOOLS / "ruff", "format", "--no-cache", cwd=plugin)
    assert lines_of_code(plugin) - generated < MOST_LINES / 2
    return plugin


def test_driver_of_the_tutorial_is_short(plugin: Path) -> None:
    """A driver is work for an afternoon."""
    assert lines_of_code(plugin) < MOST_LINES


def test_driver_of_the_tutorial_has_style_and_types(plugin: Path) -> None:
    """The page's code is what an author's own checks accept."""
    style_and_types(plugin)


@pytest.mark.parametrize(
    "chosen",
    [
        pytest.param("not process and not page and not interleaved", id="quick"),
        pytest.param("test", id="whole", marks=pytest.mark.full),
    ],
)
def test_tutorial_ends_with_a_green_kit(
    plugin: Path, installation: Installation, chosen: str
) -> None:
    """An author who has followed it has a driver that passes."""
    seen = installation.pytest("-x", "-rs", "-v", "-n", "2", "-k", chosen, cwd=plugin)
    outcomes = re.findall(r"^(\w+) +yes +(\d+|-) +(\d+|-) ", seen, re.MULTILINE)
    assert {name: failed for name, _, failed in outcomes} == dict.fromkeys(PROMISED, "-")
    assert int(re.findall(r"\b(\d+) passed", seen)[0]) > 100


def test_driver_of_the_tutorial_is_found_and_examined(
    plugin: Path, installation: Installation
) -> None:
    """The commands of the last steps show the driver by its name alone."""
    ours = [each for each in commands() if "streamq" in each and "plugin" not in each]
    assert [each[-1] for each in ours] == ["backends", "doctor", "config"]
    for each in ours:
        variables = [part for part in each if "=" in part]
        command = (installation.python, "-m", "streamq.cli", each[-1])
        assert "folder" in run("env", *variables, *command, cwd=plugin)


def lines_of_code(plugin: Path) -> int:
    """Return the number of lines of the driver, without comments and empty ones."""
    text = "\n".join(path.read_text() for path in plugin.glob("src/**/*.py"))
    return len(re.findall(r"^ *[^#\s]", text, re.MULTILINE))
