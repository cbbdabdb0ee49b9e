"""Measures the source tree: modules, their imports, layers, class names and repeated lines."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPEATED_LINES = 6

LAYERS = (
    # Of the core, from the bottom. A module belongs to the longest prefix that fits.
    ("streamq", "streamq.records", "streamq.driver_parts"),
    ("streamq.driver",),
    ("streamq.calling",),
    (
        "streamq.memory",
        "streamq.sqlite",
        "streamq._sqlite",
        "streamq.over_http",
        "streamq.reading",
        "streamq.quotas",
    ),
    ("streamq.writing",),
    ("streamq.opening", "streamq.access"),
    ("streamq._erase", "streamq._sweep"),
    ("streamq.devserver",),
    ("streamq.gateway", "streamq.temporal", "streamq.testing"),
    (
        "streamq.temporal.activities",
        "streamq.temporal._execution_story",
        "streamq.temporal._subscribe",
        "streamq.temporal._subscribe_topics",
    ),
    ("streamq.temporal.producer",),
    ("streamq.temporal.workflow",),
    (
        "streamq.temporal.generic",
        "streamq.temporal.sweeping",
        "streamq.temporal.workflow_streams",
    ),
    ("streamq.temporal._interceptor", "streamq.temporal._versioned"),
    ("streamq.temporal._plugin",),
    ("streamq.testing.applications", "streamq.a2a"),
    ("streamq.a2a.worker",),
    ("streamq.a2a.server",),
    ("streamq.a2a.sdk",),
    ("streamq.cli",),
    ("streamq_command",),
)
APART = (
    "streamq.a2a",
    "streamq.devserver",
    "streamq.gateway",
    "streamq.temporal",
    "streamq.testing",
)
"""Parts that do not import each other, except for :data:`BRIDGES`."""
BRIDGES = (
    ("streamq.testing", "streamq.devserver"),  # the kit starts servers
    ("streamq.testing.applications", "streamq.temporal"),  # and records activities
    ("streamq.gateway._stopping", "streamq.temporal"),  # asks Temporal to cancel
    ("streamq.a2a", "streamq.temporal"),  # its tasks are workflows
    ("streamq.a2a.server", "streamq.gateway"),  # holds its callers to the same rules
)


@dataclass(frozen=True)
class Module:
    """One source file.

    Attributes:
        name: As it is imported.
        path: Where it is, from the root of the tree.
        distribution: ``streamq``, or the name of the plugin's folder.
        text: Its source.
    """

    name: str
    path: Path
    distribution: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """Return the parsed source."""
        return _parse(self.text)

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return self.text.count("\n")

    @property
    def is_package(self) -> bool:
        """Whether it is a folder's ``__init__``."""
        return self.path.name == "__init__.py"

    @property
    def room(self) -> str:
        """Name of the file, or of the topmost folder in its package: its place in a driver."""
        parts = self.path.parts[self.path.parts.index("src") + 2 :]
        if parts[0] == "_sqlite":
            parts = parts[1:]
        return parts[0].removesuffix(".py").removeprefix("_")

    def public_classes(self) -> Iterator[str]:
        """Yield the names of the classes that the module defines for others."""
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield node.name


class SourceTree:
    """The modules of the core and the plugins below a root.

    Args:
        root: The checkout to measure.
        added: Lines to measure as if they stood at the end of a file, by its path.
    """

    def __init__(self, root: Path = ROOT, added: Mapping[str, str] | None = None) -> None:
        self.modules: dict[str, Module] = {}
        for source in [root / "src", *sorted(root.glob("plugins/*/src"))]:
            distribution = "streamq" if source.parent == root else source.parent.name
            for path in sorted(source.rglob("*.py")):
                parts = path.relative_to(source).with_suffix("").parts
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                place = path.relative_to(root)
                text = path.read_text() + (added or {}).get(str(place), "")
                self.modules[name] = Module(name, place, distribution, text)

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """For each module those that it imports, at its beginning or later."""
        return {name: set(self._imported(module)) - {name} for name, module in self.modules.items()}

    def _imported(self, module: Module) -> Iterator[str]:
        package = module.name if module.is_package else module.name.rpartition(".")[0]
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Import):
                yield from (each.name for each in node.names if each.name in self.modules)
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    above = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join([*above, base] if base else above)
                for each in node.names:
                    found = f"{base}.{each.name}"
                    if found in self.modules:
                        yield found
                    elif base in self.modules:
                        yield base

    def circles(self) -> list[list[str]]:
        """Return the groups of modules that import each other, straight or through others."""
        index: dict[str, int] = {}
        low: dict[str, int] = {}
        stack: list[str] = []
        found: list[list[str]] = []

        def visit(name: str) -> None:
            index[name] = low[name] = len(index)
            stack.append(name)
            for other in self.imports[name]:
                if other not in index:
                    visit(other)
                    low[name] = min(low[name], low[other])
                elif other in stack:
                    low[name] = min(low[name], index[other])
            if low[name] == index[name]:
                group = stack[stack.index(name) :]
                del stack[stack.index(name) :]
                if len(group) > 1:
                    found.append(sorted(group))

        for name in self.modules:
            if name not in index:
                visit(name)
        return found

    def upward(self) -> list[tuple[str, str]]:
        """Return the imports that lead from a layer to one above it, or between parts apart."""
        return sorted(
            (name, other)
            for name, others in self.imports.items()
            if self.modules[name].distribution == "streamq" and not self.modules[name].is_package
            for other in others
            if self.modules[other].distribution != "streamq"
            or layer_of(name) < layer_of(other)
            or _crosses(name, other)
        )

    def private(self) -> list[tuple[str, str]]:
        """Return the imports of a private module of another distribution."""
        return sorted(
            (name, other)
            for name, others in self.imports.items()
            for other in others
            if self.modules[name].distribution != self.modules[other].distribution
            and any(part.startswith("_") for part in other.split("."))
            and self.modules[name].distribution != "streamq"
        )

    def homonyms(self) -> dict[str, list[str]]:
        """Return public class names with two meanings, and where each is defined.

        Distributions may share a name for the same role: then it stands in the same room.
        """
        places: dict[str, list[Module]] = defaultdict(list)
        for module in self.modules.values():
            for name in module.public_classes():
                places[name].append(module)
        return {
            name: [str(each.path) for each in found]
            for name, found in sorted(places.items())
            if len({each.distribution for each in found}) < len(found)
            or len({each.room for each in found}) > 1
        }

    def folders(self) -> dict[str, int]:
        """Return how many modules each folder holds, packages' own files not counted."""
        counts: dict[str, int] = defaultdict(int)
        for module in self.modules.values():
            if not module.is_package:
                counts[str(module.path.parent)] += 1
        return dict(sorted(counts.items()))

    def longest(self) -> list[Module]:
        """Return the modules, longest first."""
        return sorted(self.modules.values(), key=lambda each: -each.lines)

    def repeated(self) -> list[tuple[str, str]]:
        """Return pairs of files that share six or more lines of code, with their places."""
        seen: dict[tuple[str, ...], tuple[str, int]] = {}
        pairs: dict[tuple[str, str], str] = {}
        for module in self.modules.values():
            lines = list(_code_lines(module))
            for start in range(len(lines) - REPEATED_LINES + 1):
                run = tuple(text for _, text in lines[start : start + REPEATED_LINES])
                path, number = seen.setdefault(run, (str(module.path), lines[start][0]))
                if path != str(module.path):
                    place = f"{module.path}:{lines[start][0]}"
                    pairs.setdefault((path, str(module.path)), f"{path}:{number} {place}")
        return [(each.split()[0], each.split()[1]) for each in pairs.values()]


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def layer_of(name: str) -> int:
    """Return the number of the layer that a module of the core belongs to."""
    fitting = [
        (len(prefix), number)
        for number, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if name == prefix or name.startswith(f"{prefix}.")
    ]
    return max(fitting)[1]


def _crosses(name: str, other: str) -> bool:
    parts = [
        next((each for each in APART if f"{found}.".startswith(f"{each}.")), None)
        for found in (name, other)
    ]
    if None in parts or parts[0] == parts[1]:
        return False
    return not any(
        f"{name}.".startswith(f"{above}.") and parts[1] == below for above, below in BRIDGES
    )


def _code_lines(module: Module) -> Iterator[tuple[int, str]]:
    skipped: set[int] = set()
    for node in ast.walk(module.tree):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, ast.stmt) and (
            is_text or isinstance(node, ast.Import | ast.ImportFrom)
        ):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for number, line in enumerate(module.text.splitlines(), start=1):
        text = line.strip()
        if number not in skipped and len(text) > 1 and not text.startswith(("#", "@")):
            yield number, text
