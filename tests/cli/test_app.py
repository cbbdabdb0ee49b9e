"""The command as a whole: help, errors, exit codes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import streamq
from streamq.devserver import TemporalDevServer

from .command import Cli, Inside, on_terminal, one_error, read_until

FULL = Path("/dev/full")
COMMANDS = [
    "demo",
    "ls",
    "tail",
    "serve",
    "delete",
    "sweep",
    "backends",
    "config",
    "schema",
    "plugin",
]


def test_every_help_has_examples(inside: Inside) -> None:
    """An example shows in one line what a description needs ten for."""
    for shown in inside.run_each([["--help"], *([name, "--help"] for name in COMMANDS)]):
        assert shown.code == 0
        assert "Examples:" in shown.out
        assert "\x1b" not in shown.out


def test_without_a_command_the_help_is_shown(inside: Inside) -> None:
    """The first command that users type shows them the next one."""
    shown = inside.run()
    assert shown.code == 0
    assert all(f"\n  {name} " in shown.out for name in COMMANDS)


def test_version(inside: Inside) -> None:
    """A bug report can name the version."""
    assert inside.run("--version").out == f"streamq {streamq.__version__}\n"


def test_the_installed_script_is_the_same_command(cli: Cli) -> None:
    """The entry point runs the code that these tests run."""
    script = str(Path(sys.executable).with_name("streamq"))
    process = cli.start("--version", program=[script])
    assert cli.finish(process).out == f"streamq {streamq.__version__}\n"


def test_completion_of_the_shell_is_available(cli: Cli) -> None:
    """The shell can complete commands."""
    # Requested as the installed script does; the option itself detects the shell that started it.
    shown = cli.run(env={"_STREAMQ_COMPLETE": "source_bash"})
    assert shown.code == 0
    assert "_STREAMQ_COMPLETE" in shown.out
    assert "--show-completion" in cli.run("--help").out


@pytest.mark.parametrize("module", ["streamq", "pydantic", "typer", "rich.console"])
def test_an_interruption_while_it_starts_leaves_no_traceback(cli: Cli, module: str) -> None:
    """A user who interrupts at once, after a typing error, must not get fifty lines."""
    code = f"""
import os, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupts())
from streamq_command import main
sys.exit(main())
"""
    process = cli.start("--version", program=[sys.executable, "-c", code])
    finished = cli.finish(process)
    assert (finished.code, finished.out, finished.err) == (130, "", "")


def test_wrong_usage_is_one_line_with_the_way_to_help(inside: Inside) -> None:
    """A typing error must not fill the screen."""
    wrong = {
        "nope": ["nope"],
        "--json": ["backends", "--jsno"],
        "STREAM": ["tail"],
        "(b)": ["tail", "a", "b"],
        "--wait": ["tail", "a", "--wait", "soon"],
        "--port": ["serve", "--port", "99999"],
        "pigeon": ["demo", "--delivery", "pigeon"],
        "--pace": ["demo", "--pace", "-1"],
    }
    for expected, finished in zip(wrong, inside.run_each(list(wrong.values())), strict=True):
        message = one_error(finished)
        assert expected in message
        assert "--help`" in message


def test_wrong_usage_is_reported_by_the_process_too(cli: Cli) -> None:
    """The process prints only the line, and works without any environment variable."""
    wrong: list[tuple[list[str], dict[str, str]]] = [
        (["backends", "--jsno"], {}),
        (["config"], {"STREAMQ_BACKND": "memory"}),
        (["config"], {"STREAMQ_BACKEND": "sqlit"}),
    ]
    processes = [cli.start(*arguments, env=env) for arguments, env in wrong]
    for expected, process in zip(
        ("--jsno", "'STREAMQ_BACKEND'", "'sqlite'"), processes, strict=True
    ):
        assert expected in one_error(cli.finish(process))
    assert cli.run("--help").code == 0


@pytest.mark.skipif(not FULL.exists(), reason=f"there is no {FULL}")
def test_an_error_that_cannot_be_printed_still_has_its_exit_code(cli: Cli) -> None:
    """A full disk must not turn a wrong option into a crash."""
    with FULL.open("wb") as full:
        process = cli.start("backends", "--jsno", stderr=full.fileno())
    assert cli.finish(process).code == 2


@pytest.mark.skipif(not FULL.exists(), reason=f"there is no {FULL}")
def test_results_that_cannot_be_written_are_an_error(cli: Cli) -> None:
    """A script must not take half a result for all of it, and must learn which device is full."""
    for command in ("config", "--help"):
        with FULL.open("wb") as full:
            process = cli.start(command, stdout=full.fileno())
        assert process.stderr is not None
        message = process.stderr.read().decode().rstrip()
        assert process.wait(30) == 2
        assert message == "error: writing stdout: No space left on device"


def test_a_mistyped_variable_is_refused_by_every_command(inside: Inside) -> None:
    """A mistyped setting would otherwise be ignored silently."""
    commands = [["config"], ["tail", "a"], ["ls"], ["delete", "a"], ["serve"], ["demo"], ["sweep"]]
    for finished in inside.run_each(commands, env={"STREAMQ_BACKND": "memory"}):
        message = one_error(finished)
        assert "STREAMQ_BACKND" in message
        assert "did you mean 'STREAMQ_BACKEND'?" in message


def test_an_unknown_backend_comes_with_a_suggestion(inside: Inside) -> None:
    """The nearest name that exists saves a search."""
    commands = [["config"], ["backends"], ["tail", "a"], ["demo"]]
    for finished in inside.run_each(commands, env={"STREAMQ_BACKEND": "sqlit"}):
        assert "did you mean 'sqlite'?" in one_error(finished)


def test_missing_packages_are_named_with_the_way_to_get_them(cli: Cli) -> None:
    """The core package installs the command without the packages that it needs."""
    code = (
        "import sys; sys.modules['typer'] = None\n"
        "from streamq.cli import main\nsys.exit(main(['backends']))"
    )
    process = cli.start(program=[sys.executable, "-c", code])
    assert "pip install 'streamq[cli]'" in one_error(cli.finish(process))


def test_packages_that_only_one_command_needs_are_named_when_it_runs(cli: Cli) -> None:
    """Without the gateway's packages the other commands still work."""
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from streamq.cli import main\nsys.exit(main(['serve']))"
    )
    process = cli.start(program=[sys.executable, "-c", code])
    assert "pip install 'streamq[gateway]'" in one_error(cli.finish(process))


def test_a_closed_pipe_is_no_error(cli: Cli, temporal: TemporalDevServer) -> None:
    """`streamq ... | head -1` is a common command."""
    env = {"STREAMQ_TEMPORAL_ADDRESS": temporal.address}
    process = cli.start("demo", "--exec", "while :; do echo more; done", env=env)
    assert process.stdout is not None
    assert process.stderr is not None
    read_until(process, "more")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(30) == 141
    cli.wait_until_none_alive()


def test_no_color_is_respected_on_a_terminal(cli: Cli) -> None:
    """NO_COLOR turns colours off."""
    plain, coloured = (
        on_terminal(cli, "backends", env=env) for env in ({"NO_COLOR": "1"}, {"COLORTERM": "1"})
    )
    assert "\x1b[32m" in coloured
    assert "\x1b[32m" not in plain
