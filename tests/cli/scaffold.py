"""Makes plugins with an installed streamq, runs their tests, and pastes code into them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .command import is_ours

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent

NO_NETWORK = {
    "UV_OFFLINE": "1",
    "PIP_NO_INDEX": "1",
    "PIP_INDEX_URL": "http://127.0.0.1:9",
    "GIT_ALLOW_PROTOCOL": "file",
}
"""Environment in which nothing can be fetched."""


def run(
    *command: str | Path, cwd: Path, expected: Sequence[int] = (0,), timeout: float = 100
) -> str:
    """Run a program without the environment of the tests, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if not is_ours(name)}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**environment, **NO_NETWORK, "COLUMNS": "200"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode in expected, done.stdout
    return done.stdout


@dataclass(frozen=True)
class Installation:
    """A virtual environment with streamq from its wheel, and other packages of this one."""

    directory: Path

    @classmethod
    def make(cls, directory: Path) -> Installation:
        """Build the wheel, and install it."""
        directory.mkdir()
        made = cls(directory)
        build = ("build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable)
        run(TOOLS / "uv", *build, "--out-dir", directory / "dist", ROOT, cwd=directory)
        run(TOOLS / "uv", "venv", "--quiet", "--python", sys.executable, "venv", cwd=directory)
        site = Path(run(made.python, "-c", _SITE, cwd=directory).strip())
        for each in Path(sysconfig.get_path("purelib")).iterdir():
            # Not what is installed there in editable mode: streamq and its plugins.
            if "streamq" not in each.name and each.name not in ("__pycache__", "_virtualenv.py"):
                (site / each.name).symlink_to(each)
        made.install(made.wheel)
        return made

    @property
    def wheel(self) -> Path:
        """The wheel of streamq."""
        (found,) = (self.directory / "dist").glob("*.whl")
        return found

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.directory / "venv/bin/python"

    def install(self, *what: str | Path) -> None:
        """Install without dependencies, which are there."""
        options = ("--quiet", "--no-deps", "--no-build-isolation", "--python", self.python)
        run(TOOLS / "uv", "pip", "install", *options, *what, cwd=self.directory)

    def uninstall(self, package: str) -> None:
        """Remove a package."""
        options = ("--quiet", "--python", self.python)
        run(TOOLS / "uv", "pip", "uninstall", *options, package, cwd=self.directory)

    def streamq(self, *arguments: str | Path, cwd: Path, expected: Sequence[int] = (0,)) -> str:
        """Run the command."""
        return run(self.python, "-m", "streamq.cli", *arguments, cwd=cwd, expected=expected)

    def pytest(self, *arguments: str, cwd: Path, expected: Sequence[int] = (0,)) -> str:
        """Run a plugin's tests."""
        plugins = ("-p", "no:langsmith_plugin", "-p", "no:cacheprovider")
        return run(self.python, "-m", "pytest", *plugins, *arguments, cwd=cwd, expected=expected)


_SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"


def style_and_types(plugin: Path) -> None:
    """Check a plugin as its own configuration says."""
    run(TOOLS / "ruff", "check", "--no-cache", cwd=plugin)
    run(TOOLS / "ruff", "format", "--check", "--no-cache", cwd=plugin)
    command = (sys.executable, "-m", "mypy", "--cache-dir", ROOT / ".mypy_cache/plugins")
    run("env", f"MYPYPATH={ROOT / 'src'}", *command, cwd=plugin)


def pasted(source: str, block: str) -> str:
    """Return a module after an author has pasted a block into it.

    A function with ``self`` becomes a method of the module's first class, ``__init__`` the first
    one; what has the name of something that is there replaces it; imports come to the others; the
    rest comes below.
    """
    lines = source.splitlines()
    new, now = ast.parse(block), ast.parse(source)
    main = next(node for node in now.body if isinstance(node, ast.ClassDef))
    methods = {node.name: node for node in main.body if isinstance(node, _FUNCTION)}
    there = {node.name: node for node in now.body if isinstance(node, (*_FUNCTION, ast.ClassDef))}
    imports = [node for node in now.body if isinstance(node, ast.Import | ast.ImportFrom)]
    edits: list[tuple[int, int, list[str]]] = []
    end_of_imports = imports[-1].end_lineno or 0
    for node in new.body:
        text = _text(block, node)
        if isinstance(node, ast.Import | ast.ImportFrom):
            edits.append((end_of_imports, end_of_imports, text))
        elif isinstance(node, _FUNCTION) and node.args.args and node.args.args[0].arg == "self":
            indented = ["    " + line if line else line for line in text]
            if node.name == "__init__" and not methods.get(node.name):
                first = min(method.lineno for method in methods.values()) - 1
                edits.append((first, first, [*indented, ""]))
                continue
            edits.append(_replaced(methods.get(node.name), main.end_lineno or 0, ["", *indented]))
        elif isinstance(node, (*_FUNCTION, ast.ClassDef)):
            edits.append(_replaced(there.get(node.name), len(lines), ["", "", *text]))
        else:
            edits.append((end_of_imports, end_of_imports, text))
    # From the bottom, so that line numbers stay right; in order where the place is the same.
    edits.sort(key=lambda edit: edit[0])
    for begin, end, text in reversed(edits):
        lines[begin:end] = text
    return "\n".join(lines) + "\n"


_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def _text(block: str, node: ast.stmt) -> list[str]:
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)])
    return block.splitlines()[first - 1 : node.end_lineno]


def _replaced(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None, end: int, text: list[str]
) -> tuple[int, int, list[str]]:
    if node is None:
        return end, end, text
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    while text[0] == "":
        text = text[1:]
    return first - 1, node.end_lineno or 0, text
