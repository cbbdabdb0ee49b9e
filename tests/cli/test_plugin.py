"""``streamq plugin``: what it refuses, asks and prints."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path

from streamq.cli.plugin._readme import with_tables
from streamq.cli.plugin._template import Template
from streamq.driver import Capabilities

from .command import Cli, Inside, one_error

NEW = ["plugin", "new"]


def test_every_help_of_the_group_has_examples(inside: Inside) -> None:
    """An example shows in one line what a description needs ten for."""
    commands = [["plugin"], ["plugin", "--help"]]
    commands += [["plugin", name, "--help"] for name in ("new", "update", "readme")]
    for shown in inside.run_each(commands):
        assert shown.code == 0
        assert "Examples:" in shown.out


def test_a_name_that_no_backend_can_have_is_refused(inside: Inside, tmp_path: Path) -> None:
    """The name becomes a module, variables, a table and an entry point."""
    refused = {
        "streamq-acme": "did you mean 'acme'?",
        "Acme": "did you mean 'acme'?",
        "my-queue": "did you mean 'my_queue'?",
        "1st": "begin with a letter",
        "a__b": "did you mean 'a_b'?",
        "": "begin with a letter",
        "q" * 21: "at most 20",
        "../acme": "did you mean 'acme'?",
    }
    names = [[*NEW, "--defaults", "--", name] for name in refused]
    for expected, finished in zip(refused.values(), inside.run_each(names), strict=True):
        assert expected in one_error(finished)
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_taken_is_refused(inside: Inside) -> None:
    """Two drivers of one name, or two meanings of one variable, could not be told apart."""
    taken = {
        "redis": "exists already",
        "sqlite": "exists already",
        "sqs": "exists already",
        "temporal": "STREAMQ_TEMPORAL_ADDRESS",
        "retry": "STREAMQ_RETRY_SECONDS",
        "debug": "STREAMQ_DEBUG",
    }
    names = [[*NEW, name, "--defaults"] for name in taken]
    for expected, finished in zip(taken.values(), inside.run_each(names), strict=True):
        assert expected in one_error(finished)


def test_a_directory_that_has_something_is_left_alone(inside: Inside, tmp_path: Path) -> None:
    """Files of the author must not be mixed with, or replaced by, generated ones."""
    (tmp_path / "streamq-acme").mkdir()
    (tmp_path / "streamq-acme/mine.py").write_text("1")
    message = one_error(inside.run(*NEW, "acme", "--defaults"))
    assert "is not empty: it has mine.py" in message
    assert "--directory" in message
    (tmp_path / "file").write_text("1")
    message = one_error(inside.run(*NEW, "acme", "--defaults", "--directory", "file"))
    assert "is a file" in message
    assert [path.name for path in tmp_path.rglob("*.py")] == ["mine.py"]


def test_answers_that_cannot_be_given_are_refused(inside: Inside, tmp_path: Path) -> None:
    """A mistyped answer of a script must not be replaced by a default in silence."""
    wrong = {
        "knd=http": "did you mean 'kind'?",
        "colour=red": "they are ",
        "kind=pigeon": "kind",
        "capabilities=[replay]": "something has to tell attempts apart",
        "client_package=a; rm -rf": "one requirement",
        'description=a "quote"': "without quotes",
    }
    commands = [[*NEW, "acme", "--defaults", "--data", answer] for answer in wrong]
    for expected, finished in zip(wrong.values(), inside.run_each(commands), strict=True):
        assert expected in one_error(finished)
    assert "KEY=VALUE" in one_error(inside.run(*NEW, "acme", "--defaults", "--data", "kind"))
    assert not list(tmp_path.iterdir())


def test_questions_need_a_terminal(cli: Cli) -> None:
    """A script that waits for an answer of nobody would hang."""
    assert "pass --defaults" in one_error(cli.run(*NEW, "acme"))


def test_missing_copier_is_named_with_the_way_to_get_it(cli: Cli) -> None:
    """The template needs a package that nothing else does."""
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'copier' else find(name)\n"
        "from streamq.cli import main\nsys.exit(main(['plugin', 'new', 'acme', '--defaults']))"
    )
    process = cli.start(program=[sys.executable, "-c", code])
    assert "pip install 'streamq[plugin]'" in one_error(cli.finish(process))


def test_missing_git_is_named(inside: Inside, tmp_path: Path) -> None:
    """copier reads a template from a repository; its own error would be a traceback."""
    finished = inside.run(*NEW, "acme", "--defaults", env={"PATH": str(tmp_path)})
    assert "needs git" in one_error(finished)


def test_what_was_made_and_what_comes_next_is_printed(inside: Inside, tmp_path: Path) -> None:
    """An author who runs the command once knows where to begin."""
    finished = inside.run(*NEW, "acme", "--defaults", "--data", "kind=http", "--directory", "d/e")
    assert finished.code == 0, finished.err
    made = {path.name for path in (tmp_path / "d/e").rglob("*")}
    assert {name for name in made if name not in finished.out} == set()
    assert "_queue.py  the contract: write this" in finished.out
    steps = ("cd d/e", "pip install --upgrade 'pip>=25.1'", "pip install -e . --group dev")
    for step in (*steps, "pytest -x"):
        assert f"  {step}\n" in finished.out
    project = tomllib.loads((tmp_path / "d/e/pyproject.toml").read_text())["project"]
    assert project["entry-points"] == {"streamq.drivers": {"acme": "streamq_acme:AcmeDriver"}}
    assert any(each.startswith("streamq>=") for each in project["dependencies"])


def test_questions_are_asked_on_a_terminal(cli: Cli) -> None:
    """Whoever tries the command learns what there is to choose."""
    ours, theirs = os.openpty()
    process = cli.start(
        *NEW, "acme", env={"TERM": "dumb"}, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    seen = b""
    asked = (b"few words", b"Author", b"reached", b"client on PyPI", b"promise")
    for question in asked:
        while question not in seen:
            seen += os.read(ours, 4096)
        os.write(ours, b"\r")
    try:
        while data := os.read(ours, 4096):
            seen += data
    except OSError:
        pass  # the error that Linux raises when the other side is closed
    os.close(ours)
    assert process.wait(30) == 0, seen.decode()
    assert (cli.directory / "streamq-acme/pyproject.toml").exists()


def test_readme_of_a_driver_that_is_not_installed_is_left_alone(
    inside: Inside, tmp_path: Path
) -> None:
    """The command says what is missing, and empties no table."""
    text = "<!-- begin settings nothing -->\nold\n<!-- end settings nothing -->\n"
    (tmp_path / "README.md").write_text(text)
    assert "pip install -e ." in one_error(inside.run("plugin", "readme"))
    assert (tmp_path / "README.md").read_text() == text


def test_readme_is_renewed_and_checked(inside: Inside, tmp_path: Path) -> None:
    """A table that someone forgot to renew would promise what the driver does not."""
    page = tmp_path / "PAGE.md"
    page.write_text("<!-- begin capabilities memory -->\n<!-- end capabilities memory -->\n")
    assert inside.run("plugin", "readme", "PAGE.md", "--check").code == 1
    assert inside.run("plugin", "readme", "PAGE.md").code == 0
    assert "| `fenced` | yes |" in page.read_text()
    assert inside.run("plugin", "readme", "PAGE.md", "--check").code == 0


def test_what_stands_beside_a_table_is_not_changed() -> None:
    """An author's words may stand before, between and after the tables."""
    text = "a\n<!-- begin t -->\nold\n<!-- end t -->\nb <!-- begin --> c\n"
    assert with_tables(text, {"t": lambda: "new"}) == text.replace("old", "new")


def test_help_names_every_answer_that_can_be_given(inside: Inside) -> None:
    """Whoever writes a script has not seen the questions."""
    shown = " ".join(inside.run(*NEW, "--help").out.split())
    text = (Template().current / "copier.yml").read_text()
    choices = re.findall(r"^    .+: (\w+)$", text, re.MULTILINE)
    assert {"http", *Capabilities.flags()} < {*choices}
    assert [each for each in choices if not re.search(rf"\b{each}\b", shown)] == []


def test_questions_of_the_template_are_known_to_the_command() -> None:
    """An unknown answer is refused by comparison with this list."""
    assert {"kind", "description", "author", "client_package", "capabilities"} < {
        *Template().questions()
    }
