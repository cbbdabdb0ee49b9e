"""Replaces one module by its mutant, here and in processes that this one starts.

Python imports this file at its start if its directory is in ``PYTHONPATH``. It needs nothing but
the standard library, and reads from ``STREAMQ_MUTANT`` which module is another one, and how much
memory may be used. Nothing is written.

Design: docs/design/testing.md.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import resource
import sys
import types
from collections.abc import Sequence
from pathlib import Path

VARIABLE = "STREAMQ_MUTANT"


class MutantLoader(importlib.machinery.SourceFileLoader):
    """Loads the module from the mutant's text, without its cached bytecode."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> types.CodeType:
        """Compile the mutant."""
        return compile(self._text, self.path, "exec", dont_inherit=True)


class MutantFinder(importlib.abc.MetaPathFinder):
    """Finds the one module that is another one."""

    def __init__(self, module: str, path: str, text: str) -> None:
        self._module = module
        self._path = path
        self._text = text

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: types.ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the mutant's spec, or leave it to others."""
        if fullname != self._module:
            return None
        loader = MutantLoader(fullname, self._path, self._text)
        return importlib.util.spec_from_file_location(fullname, self._path, loader=loader)


def install() -> None:
    """Import the mutant instead of its module from now on."""
    place = os.environ.get(VARIABLE)
    if place:
        job = json.loads(Path(place).read_text(encoding="utf-8"))
        resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if job["module"]:
            sys.meta_path.insert(0, MutantFinder(job["module"], job["path"], job["text"]))


if __name__ == "sitecustomize":
    install()
