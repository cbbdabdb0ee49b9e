"""The template of ``streamq plugin new``: what it makes is complete, and says what is missing."""

from __future__ import annotations

import inspect
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamq
from streamq import driver
from streamq.cli import main
from streamq.cli.plugin._plugin_names import plugin_names
from streamq.cli.plugin._template import Template
from streamq.devserver import DevServer
from streamq.testing import BackendHarness

from .scaffold import ROOT, Installation, pasted, style_and_types

CHANGELOG = ROOT / "CHANGELOG.md"
KEEP = (
    "git diff --binary --relative=src/streamq/cli/plugin/template "
    "$(git hash-object -t tree /dev/null) v{0} > src/streamq/cli/plugin/earlier/{0}.patch"
)

VARIANTS = {
    "a": ["kind=tcp", "client_package=redis[hiredis]>=5"],
    "longest_name_of_all_": ["kind=http", "capabilities=[ordered, replay, expires, cross_process]"],
    "shelf": ["kind=embedded", "capabilities=[fenced, fan_out]", "author=Ada O'Neil"],
}
"""Names, the shortest and the longest, and answers; each call of the contract is in one of them."""


def made(place: Path, name: str, *answers: str) -> Path:
    """Make a plugin, and return its directory."""
    data = [part for answer in answers for part in ("--data", answer)]
    command = ["plugin", "new", name, "--defaults", "--directory", str(place / name), *data]
    assert main(command) == 0
    return place / name


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("plugins")
    return [made(place, name.rstrip("_"), *answers) for name, answers in VARIANTS.items()]


@pytest.mark.parametrize("number", range(len(VARIANTS)))
def test_what_is_made_has_the_style_and_types_that_it_checks(
    plugins: list[Path], number: int
) -> None:
    """An author whose first `ruff` and `mypy` fail begins with somebody else's mistakes."""
    style_and_types(plugins[number])


def test_longest_name_is_among_the_plugins() -> None:
    """A longer name makes longer lines."""
    longest = max((name.rstrip("_") for name in VARIANTS), key=len)
    assert plugin_names(longest).name == longest
    with pytest.raises(streamq.ConfigurationError, match="at most"):
        plugin_names(f"{longest}_of")


def messages(plugin: Path) -> Iterator[tuple[str, str]]:
    """Yield what each unwritten function says, and the object whose contract it quotes."""
    for path in plugin.rglob("*.py"):
        for text in re.findall(r"NotImplementedError\(\n(.*?)\n +\)", path.read_text(), re.DOTALL):
            words = "".join(re.findall(r'^ *"(.*)"$', text, re.MULTILINE))
            yield words, re.findall(r"help\(([\w.]+)\)", words)[0]


def test_what_is_unwritten_quotes_the_contract(plugins: list[Path]) -> None:
    """An author who follows a sentence that the contract no longer has writes the wrong thing."""
    found = dict(each for plugin in plugins for each in messages(plugin))
    for words, name in found.items():
        quoted = re.findall(r"The contract(?: of open)?: (.*?) See docs/", words)[0]
        documented = inspect.getdoc(named(name)) or ""
        assert quoted in " ".join(documented.split()), name
    assert {name.rpartition(".")[2] for name in found.values()} == {
        *("command", "open", "append", "read", "describe", "delete", "streams"),
        *("newest_epoch", "commit", "release", "sweep"),
    }


def named(name: str) -> object:
    """Return what a qualified name means."""
    roots = {
        "streamq.driver.": driver,
        "streamq.devserver.DevServer.": DevServer,
        "streamq.testing.BackendHarness.": BackendHarness,
    }
    for prefix, found in roots.items():
        if name.startswith(prefix):
            each: object = found
            for part in name.removeprefix(prefix).split("."):
                each = getattr(each, part)
            return each
    raise AssertionError(f"{name} is in no module that authors are sent to")


def test_pages_that_the_template_names_exist() -> None:
    """A message sends its reader to a page that is there."""
    files = [path for path in Template().current.rglob("*") if path.is_file()]
    pages = {each for path in files for each in re.findall(r"docs/[\w/-]+\.md", path.read_text())}
    assert pages
    assert [page for page in pages if not (ROOT / page).exists()] == []


def test_template_of_each_release_is_kept() -> None:
    """Without it, plugins of that release cannot be brought up to date."""
    released = re.findall(r"^## (\d+\.\d+\.\d+)", CHANGELOG.read_text(), re.MULTILINE)
    missing = {*released} - {*Template().releases(), streamq.__version__}
    assert not missing, "; ".join(f"keep it: {KEEP.format(each)}" for each in missing)
    assert KEEP.format("0.1.0") in (ROOT / "docs/design/scaffold.md").read_text()


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    return Installation.make(tmp_path_factory.mktemp("template") / "installation")


def test_wheel_has_the_whole_template(installation: Installation) -> None:
    """Who installs streamq has no checkout."""
    source = ROOT / "src"
    there = {
        str(path.relative_to(source))
        for path in Template().current.parent.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert len(there) > 15
    assert there - {*zipfile.ZipFile(installation.wheel).namelist()} == set()


SERVER = """
import sys

def command(self, data_dir: Path) -> Sequence[str]:
    return [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(self.port)]
"""
"""A program that takes connections: enough for the harness to open queues through its proxy."""


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("kind", "failures"),
    [
        ("tcp", ["write AcmeServer.command in", "write AcmeQueue.append in"]),
        ("http", ["write AcmeServer.command in", "write connect in"]),
        ("embedded", ["write AcmeQueue.append in"]),
    ],
    ids=["tcp", "http", "embedded"],
)
def test_first_failure_says_what_to_write_first(
    tmp_path: Path, installation: Installation, kind: str, failures: list[str]
) -> None:
    """From an installed wheel, without a network: names, settings and errors pass at once."""
    data = ("--data", f"kind={kind}")
    installation.streamq("plugin", "new", "acme", "--defaults", *data, cwd=tmp_path)
    plugin = tmp_path / "streamq-acme"
    installation.install("-e", plugin)
    try:
        seen = installation.pytest("-x", cwd=plugin, expected=[1])
        assert re.search(r"\b(?:5|16) passed", seen)
        (failed,) = re.findall(r"^(?:FAILED|ERROR) (\S+)", seen, re.MULTILINE)
        assert "test_acme_conformance.py" in failed
        assert said(seen).startswith(failures[0])
        assert kind != "embedded" or "Likely cause    the call is not written yet" in seen
        for expected in failures[1:]:
            file = plugin / "src/streamq_acme/embedded.py"
            file.write_text(pasted(file.read_text(), SERVER))
            seen = installation.pytest("-x", "-k", "unchanged", cwd=plugin, expected=[1])
            assert said(seen).startswith(expected)
    finally:
        installation.uninstall("streamq-acme")


def said(seen: str) -> str:
    """Return what the first unwritten function says."""
    return str(re.findall(r"^E +NotImplementedError: (.*)", seen, re.MULTILINE)[0])
