"""Makes an older version of the sources a contender: a git worktree with its own interpreter."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PYTHON = Path(".venv/bin/python")


@contextmanager
def checkout(version: str, *, packages: Sequence[str] = ()) -> Iterator[Path]:
    """Yield the interpreter of another version of the sources.

    Args:
        version: A revision, of which a worktree is made and removed in the end; or the folder of
            a checkout with a virtual environment, which is used as it is.
        packages: Installed beside, into a new worktree only: what the benchmark itself imports.
    """
    if (Path(version) / _PYTHON).exists():
        yield (Path(version) / _PYTHON).absolute()
        return
    with tempfile.TemporaryDirectory(prefix="before-") as parent:
        folder = Path(parent) / "sources"
        _run("git", "-C", str(_ROOT), "worktree", "add", "--quiet", "--detach", folder, version)
        try:
            _run("make", "--quiet", "-C", folder, "setup")
            python = folder / _PYTHON
            if packages:
                _run(python.with_name("uv"), "pip", "install", "-q", "--python", python, *packages)
            yield python
        finally:
            _run("git", "-C", str(_ROOT), "worktree", "remove", "--force", folder)


def _run(*command: str | Path) -> None:
    if (code := subprocess.run([*map(str, command)], check=False).returncode) != 0:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {code}")
