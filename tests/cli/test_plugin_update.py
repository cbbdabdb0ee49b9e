"""``streamq plugin update``: a plugin follows the template, and its author's changes stay."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import streamq
from streamq import ConfigurationError
from streamq.cli.plugin import _command
from streamq.cli.plugin._template import ANSWERS, Template, make_plugin, update_plugin

from .command import Inside, one_error

ANSWERED = {
    "name": "acme",
    "distribution": "streamq-acme",
    "module": "streamq_acme",
    "title": "Acme",
    "kind": "embedded",
}
ERRORS = Path("src/streamq_acme/_errors.py")
NAMING = Path("src/streamq_acme/_naming.py")
IN_TEMPLATE = Path("project/src/{{ module }}")


def git(plugin: Path, *arguments: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *who, *arguments], cwd=plugin, capture_output=True, text=True, check=True
    )
    return done.stdout


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of this module."""
    return tmp_path_factory.mktemp("updates")


@pytest.fixture(scope="module")
def earlier(shelf: Path) -> Template:
    """The template of an earlier release: this one, with other words in two files."""
    place = shelf / "earlier-template"
    shutil.copytree(Template().current, place)
    changed(place / IN_TEMPLATE / "_naming.py.jinja", "A digest, since", "A hash, because")
    changed(place / IN_TEMPLATE / "_errors.py.jinja", "errno.EIO", "errno.ENOTTY")
    (place / "project/OLD.md.jinja").write_text("Of no use any more.\n")
    (place / IN_TEMPLATE / "_requests.py.jinja").unlink()
    return Template(place, shelf / "none", "0.0.9")


@pytest.fixture(scope="module")
def kept(shelf: Path, earlier: Template) -> Path:
    """A directory with that template as it is kept: what makes it in an empty directory."""
    repository, kept = shelf / "repository", shelf / "kept"
    repository.mkdir()
    kept.mkdir()
    shutil.copytree(earlier.current, repository / "template")
    git(repository, "init", "--quiet")
    git(repository, "add", "--all", "--force")
    patch = git(repository, "diff", "--cached", "--binary", "--relative=template")
    (kept / "0.0.9.patch").write_text(patch)
    return kept


@pytest.fixture(scope="module")
def made(shelf: Path, earlier: Template) -> Path:
    """A plugin that the earlier release has made, in a repository."""
    made = shelf / "streamq-acme"
    make_plugin(made, ANSWERED, asks=False, template=earlier)
    git(made, "init", "--quiet")
    commit(made)
    return made


@pytest.fixture
def plugin(tmp_path: Path, made: Path) -> Path:
    """A copy of that plugin."""
    return shutil.copytree(made, tmp_path / "streamq-acme")


def commit(plugin: Path) -> None:
    git(plugin, "add", "--all")
    git(plugin, "commit", "--quiet", "--message", "m")


Update = Callable[[], tuple[str, list[str], list[str]]]


@pytest.fixture
def update(plugin: Path, kept: Path) -> Update:
    """Bring the plugin up to date with the present template."""
    return lambda: update_plugin(plugin, asks=False, template=replace(Template(), earlier=kept))


def test_what_the_template_has_learnt_arrives_and_the_authors_work_stays(
    plugin: Path, update: Update
) -> None:
    """Without updates, each plugin would stay as the contract was on the day it was made."""
    changed(plugin / ERRORS, "_CLIENT = (OSError,)", "_CLIENT = (OSError, LookupError)")
    (plugin / "src/streamq_acme/_own.py").write_text("MINE = 1\n")
    (plugin / ".gitignore").unlink()
    commit(plugin)
    made_by, files, conflicts = update()
    assert (made_by, conflicts) == ("0.0.9", [])
    assert "A digest, since" in (plugin / NAMING).read_text()
    errors = (plugin / ERRORS).read_text()
    assert "errno.EIO" in errors
    assert "_CLIENT = (OSError, LookupError)" in errors
    assert (plugin / "src/streamq_acme/_own.py").read_text() == "MINE = 1\n"
    assert (plugin / "src/streamq_acme/_requests.py").exists()
    assert not (plugin / "OLD.md").exists()
    assert not (plugin / ".gitignore").exists()
    assert f"_commit: v{streamq.__version__}" in (plugin / ANSWERS).read_text()
    assert str(NAMING) in files


def test_lines_that_both_have_changed_are_shown_by_both_sides(
    tmp_path: Path, made: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch, kept: Path
) -> None:
    """Neither the author's word nor the template's may be lost, also in a repository of several."""
    plugin = tmp_path / "several/plugins/acme"
    shutil.copytree(made, plugin, ignore=shutil.ignore_patterns(".git"))
    git(tmp_path / "several", "init", "--quiet")
    changed(plugin / NAMING, "A hash, because", "My own words, because")
    commit(plugin)
    present = replace(Template(), earlier=kept)
    monkeypatch.setattr(
        _command, "update_plugin", lambda *a, **k: update_plugin(*a, **k, template=present)
    )
    finished = inside.run("plugin", "update", "--directory", str(plugin))
    assert finished.code == 1
    lines = {line.split()[0]: line for line in finished.out.splitlines()}
    assert "conflict: choose between both sides" in lines[str(NAMING)]
    assert "up to date" in lines[str(ERRORS)]
    text = (plugin / NAMING).read_text()
    assert text.index("<<<<<<<") < text.index("My own words") < text.index("=======")
    assert text.index("=======") < text.index("A digest, since") < text.index(">>>>>>>")


def test_a_plugin_that_is_up_to_date_stays_as_it_is(plugin: Path, earlier: Template) -> None:
    """A second update must not undo or repeat the first one, or what the author has done since."""
    changed(plugin / NAMING, "A hash, because", "My own words, because")
    commit(plugin)
    assert update_plugin(plugin, asks=False, template=earlier) == (earlier.release, [], [])


def test_changes_that_are_not_committed_are_not_mixed_with_an_update(
    plugin: Path, update: Update
) -> None:
    """The author could not tell the two apart, and could not go back."""
    (plugin / "README.md").write_text("mine\n")
    with pytest.raises(ConfigurationError, match="commit or stash your local changes"):
        update()
    assert (plugin / "README.md").read_text() == "mine\n"


def test_a_template_that_is_not_known_is_named(tmp_path: Path, inside: Inside) -> None:
    """Guessing what the plugin was made from would mark nearly every line as a conflict."""
    message = one_error(inside.run("plugin", "update"))
    assert f"there is no {ANSWERS}" in message
    (tmp_path / ANSWERS).write_text("name: acme\n")
    assert "does not say which streamq made" in one_error(inside.run("plugin", "update"))
    (tmp_path / ANSWERS).write_text("_commit: v99.0.0\n")
    message = one_error(inside.run("plugin", "update"))
    assert "streamq 99.0.0 made this plugin" in message
    assert "install that release or a newer one" in message


def test_address_of_the_template_is_the_same_on_every_machine(plugin: Path) -> None:
    """A colleague updates a plugin whose template was in another place when it was made."""
    answers = (plugin / ANSWERS).read_text()
    assert "_src_path: git+streamq-template:driver" in answers
    assert "/tmp" not in answers
