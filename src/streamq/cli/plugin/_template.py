"""Runs copier on the template, which is given to it as a repository with the earlier releases.

Design: docs/design/scaffold.md.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import streamq
from streamq._errors import ConfigurationError
from streamq._settings_base import did_you_mean

ANSWERS = ".copier-answers.yml"
"""File of a plugin with the answers that it was made from."""

_HERE = Path(__file__).parent
_ADDRESS = "streamq-template:"
_REPOSITORY = "driver"
_CONFLICT = "<<<<<<< before updating"
_SUFFIX = ".patch"
_COMMIT = re.compile(r"^_commit:\s*['\"]?v?(\d+\.\d+\.\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Template:
    """The template of one release, and those of earlier ones.

    Attributes:
        current: Directory with ``copier.yml``.
        earlier: Directory with ``<release>.patch`` for each earlier release: what makes its
            template in an empty directory.
        release: Version of streamq that :attr:`current` belongs to.
    """

    current: Path = _HERE / "template"
    earlier: Path = _HERE / "earlier"
    release: str = streamq.__version__

    def questions(self) -> list[str]:
        """Return the names of the questions that it asks."""
        text = (self.current / "copier.yml").read_text("utf-8")
        return re.findall(r"^([a-z]\w*):", text, re.MULTILINE)

    def releases(self) -> list[str]:
        """Return the earlier releases, oldest first."""
        found = [path.name.removesuffix(_SUFFIX) for path in self.earlier.glob(f"*{_SUFFIX}")]
        return sorted(found, key=numbers)

    def write_repository(self, place: Path) -> None:
        """Make a repository in an empty directory, with a tag for each release."""
        _git(place, "init", "--quiet")
        for release in self.releases():
            _git(place, "rm", "-r", "-f", "--quiet", "--ignore-unmatch", ".")
            _git(place, "apply", "--index", str(self.earlier / f"{release}{_SUFFIX}"))
            _commit(place, release)
        _git(place, "rm", "-r", "-f", "--quiet", "--ignore-unmatch", ".")
        shutil.copytree(self.current, place, dirs_exist_ok=True)
        _git(place, "add", "--all", "--force")
        _commit(place, self.release)


def make_plugin(
    target: Path, answers: Mapping[str, str], *, asks: bool, template: Template | None = None
) -> None:
    """Make a plugin in a directory that is empty or does not exist.

    Args:
        target: The directory.
        answers: Answers that are not asked for.
        asks: Whether to ask for the others; else they have their defaults.
        template: By default that of this streamq.

    Raises:
        ConfigurationError: An answer is none that can be given; copier or git is missing.
    """
    template = template or Template()
    known = template.questions()
    for name in answers:
        if name not in known:
            meant = did_you_mean(name, known) or f"; they are {', '.join(known)}"
            raise ConfigurationError(f"the template has no question {name!r}{meant}")
    given = [part for name, value in answers.items() for part in ("--data", f"{name}={value}")]
    options = [*given, *([] if asks else ["--defaults"]), "--quiet"]
    options += ["--vcs-ref", f"v{template.release}"]
    with _repository(template) as environment:
        _copier(["copy", *options, f"git+{_ADDRESS}{_REPOSITORY}", str(target)], environment)


def update_plugin(
    target: Path, *, asks: bool, template: Template | None = None
) -> tuple[str, list[str], list[str]]:
    """Bring what the template made up to date, and keep what its author has changed.

    Args:
        target: Directory of the plugin: a git repository without changes.
        asks: Whether to ask questions that are new; else they have their defaults.
        template: By default that of this streamq.

    Returns:
        The release that had made the plugin, the files that changed, and those of them with a
        conflict, which the file shows between ``<<<<<<<`` and ``>>>>>>>``.

    Raises:
        ConfigurationError: The directory has no plugin that this streamq can update, or has
            changes that are not committed.
    """
    template = template or Template()
    made_by = release_of(target)
    known = [*template.releases(), template.release]
    if made_by not in known:
        is_newer = numbers(made_by) > numbers(template.release)
        remedy = "install that release or a newer one" if is_newer else "has no template for it"
        raise ConfigurationError(
            f"{target / ANSWERS} says that streamq {made_by} made this plugin; this is streamq "
            f"{template.release}: {remedy}"
        )
    options = ["--quiet", "--skip-answered", "--conflict", "inline"]
    options += ["--vcs-ref", f"v{template.release}", *([] if asks else ["--defaults"])]
    with _repository(template) as environment:
        _copier(["update", *options, str(target)], environment)
    files = _changed_files(target)
    return made_by, files, [file for file in files if _has_conflict(target / file)]


def release_of(target: Path) -> str:
    """Return the release of streamq whose template a plugin follows.

    Raises:
        ConfigurationError: It was not made by ``streamq plugin new``.
    """
    try:
        found = _COMMIT.search((target / ANSWERS).read_text("utf-8"))
    except OSError as exc:
        raise ConfigurationError(
            f"there is no {ANSWERS} in {target}; run this where `streamq plugin new` has made a "
            "plugin"
        ) from exc
    if found is None:
        raise ConfigurationError(
            f"{target / ANSWERS} does not say which streamq made this plugin; restore its line "
            "_commit from the repository's history"
        )
    return found[1]


def numbers(release: str) -> tuple[int, ...]:
    """Return a release as numbers, which can be compared."""
    return tuple(map(int, re.findall(r"\d+", release)))


def _changed_files(target: Path) -> list[str]:
    """Return the files of a plugin that differ from its last commit, also if it is in a folder."""
    commands = (
        ("diff", "--name-only", "--no-renames", "--relative", "-z", "HEAD"),
        ("ls-files", "--others", "--exclude-standard", "-z"),
    )
    found = "".join(_git(target, *command, environment=os.environ) for command in commands)
    return sorted({*found.split("\0")} - {""})


def _has_conflict(path: Path) -> bool:
    return path.is_file() and _CONFLICT in path.read_text("utf-8", errors="replace")


@contextmanager
def _repository(template: Template) -> Iterator[dict[str, str]]:
    """Give the environment in which the address of every plugin's template leads to this one.

    A plugin names an address and no path: it is updated on another machine than it was made on.
    """
    if importlib.util.find_spec("copier") is None:
        raise ModuleNotFoundError("No module named 'copier'", name="copier")
    if shutil.which("git") is None:
        raise ConfigurationError("this command needs git, which is not on PATH; install it")
    with tempfile.TemporaryDirectory(prefix="streamq-template-") as directory:
        place = Path(directory, _REPOSITORY)
        place.mkdir()
        template.write_repository(place)
        count = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
        yield {
            **os.environ,
            "GIT_CONFIG_COUNT": str(count + 1),
            f"GIT_CONFIG_KEY_{count}": f"url.file://{directory}/.insteadOf",
            f"GIT_CONFIG_VALUE_{count}": _ADDRESS,
            # A copy that outlives this call would be of a repository that is gone.
            "COPIER_CACHE_DIR": str(Path(directory, "copier")),
            # Its own advice on templates is about other templates.
            "PYTHONWARNINGS": "ignore",
        }


def _copier(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run copier, which asks its questions on this terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "copier", *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise ConfigurationError(f"copier: {lines[-1] if lines else 'it was interrupted'}")


def _commit(place: Path, release: str) -> None:
    _git(place, "commit", "--quiet", "--allow-empty", "--message", f"streamq {release}")
    _git(place, "tag", f"v{release}")


def _git(place: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run git, without anybody's configuration unless an environment is given."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=place,
        env=_nobodys_environment() if environment is None else environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        why = done.stderr.strip() or done.stdout.strip()
        raise ConfigurationError(f"git {arguments[0]} has failed in {place}: {why}")
    return done.stdout


def _nobodys_environment() -> dict[str, str]:
    """Return the environment in which git signs nothing, runs no hooks and ignores no files."""
    who = {"NAME": "streamq", "EMAIL": "streamq@localhost", "DATE": "2000-01-01T00:00:00+0000"}
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **{f"GIT_{role}_{key}": who[key] for role in ("AUTHOR", "COMMITTER") for key in who},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
