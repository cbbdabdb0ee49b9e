"""Lists the mutants of a driver, each with an identity that outlives changes elsewhere.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .drivers import ROOT, DriverUnderTest
from .operators import OPERATORS
from .source import Edit, Source, walk

_ID_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one driver.

    Attributes:
        driver: Name of the driver.
        module: Name of the module.
        path: The module's file.
        function: Qualified name of the function or class; empty at the top of the module.
        operator: Name of the operator.
        before: The statement, or its head, as it is, in one line.
        after: The same, changed.
        occurrence: Number among those that are the same in all of the above, from 1.
        first_line: First line of that statement.
        last_line: Its last line.
        is_called: Whether it is inside a function; otherwise only the import executes it.
        edit: What is changed.
        text: The module as it was when the mutants were listed.
    """

    driver: str
    module: str
    path: Path
    function: str
    operator: str
    before: str
    after: str
    occurrence: int
    first_line: int
    last_line: int
    is_called: bool
    edit: Edit = field(repr=False)
    text: str = field(repr=False)

    @property
    def key(self) -> tuple[str, str, str, str, str, str, int]:
        """What identifies it as long as its statement stays the same."""
        return (
            *(self.driver, self.module, self.function, self.operator),
            *(self.before, self.after, self.occurrence),
        )

    @property
    def id(self) -> str:
        """A short form of :attr:`key`."""
        text = "\0".join(map(str, self.key))
        return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]

    @property
    def place(self) -> str:
        """File and line, below the top of the checkout if it is there."""
        path = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{path}:{self.first_line}"

    def source(self) -> str:
        """Return the changed text of the module."""
        return self.edit.applied_to(self.text)

    def diff(self) -> str:
        """Return the change as a unified diff without context, and without names of files."""
        lines = difflib.unified_diff(
            self.text.splitlines(), self.source().splitlines(), n=0, lineterm=""
        )
        return "\n".join(line for line in lines if line[:3] not in ("---", "+++"))

    def compiles(self) -> bool:
        """Whether Python takes the changed module, and as another one than before."""
        try:
            tree = ast.parse(self.source())
            compile(tree, str(self.path), "exec")
        except (SyntaxError, ValueError):
            return False
        return ast.dump(tree) != ast.dump(ast.parse(self.text))


def mutants_of(driver: DriverUnderTest) -> list[Mutant]:
    """Return every mutant of a driver, in the order of modules and lines."""
    return [mutant for module in driver.modules for mutant in _mutants_in(driver, module)]


def _mutants_in(driver: DriverUnderTest, module: str) -> Iterator[Mutant]:
    path = driver.path(module)
    source = Source(path.read_text(encoding="utf-8"))
    seen: set[Edit] = set()
    occurrences: Counter[tuple[str, ...]] = Counter()
    for node, place in walk(source, driver.left_out_of(module), has_threads=driver.has_threads):
        for operator in OPERATORS.values():
            for edit in operator.find(node, place):
                if edit in seen or edit.text == source.text[edit.start : edit.end]:
                    continue
                seen.add(edit)
                start, end = place.unit
                if not start <= edit.start <= edit.end <= end:
                    start, end = edit.start, edit.end
                unit = source.text[start:end]
                before = " ".join(unit.split())
                after = " ".join(edit.applied_to(unit, start).split())
                same = (module, place.function, operator.name, before, after)
                occurrences[same] += 1
                yield Mutant(
                    driver=driver.name,
                    module=module,
                    path=path,
                    function=place.function,
                    operator=operator.name,
                    before=before,
                    after=after,
                    occurrence=occurrences[same],
                    first_line=source.line(start),
                    last_line=source.line(max(start, end - 1)),
                    is_called=place.is_called and not _is_head_of_function(unit),
                    edit=edit,
                    text=source.text,
                )


def _is_head_of_function(unit: str) -> bool:
    return unit.startswith(("def ", "async def "))
