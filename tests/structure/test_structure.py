"""The structure of the source: layers, names, sizes and rooms stay as CONTRIBUTING draws them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .source_tree import ROOT, SourceTree

MOST_LINES = 400
SPECIFICATION = "streamq.driver"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.fixture(scope="module")
def tree() -> SourceTree:
    return SourceTree()


def section(heading: str) -> str:
    """Return the text below a heading of CONTRIBUTING."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", CONTRIBUTING, re.M | re.S)
    assert found is not None, f"CONTRIBUTING has no section {heading!r}"
    return found[1]


def rows(heading: str) -> Iterator[tuple[str, ...]]:
    """Yield the cells of the tables in a section, without their heads."""
    lines = [line for line in section(heading).splitlines() if line.startswith("|")]
    for number, line in enumerate(lines):
        is_rule = set(line) <= set("|- ")
        is_head = number + 1 < len(lines) and set(lines[number + 1]) <= set("|- ")
        if not is_rule and not is_head:
            yield tuple(cell.strip() for cell in line.strip("|").split("|"))


def quoted(text: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def test_no_circle_of_imports(tree: SourceTree) -> None:
    """Modules that import each other can only be understood together."""
    assert tree.circles() == []


def test_imports_lead_downward(tree: SourceTree) -> None:
    """A layer that imports from above cannot be read, tested or replaced without it."""
    assert tree.upward() == []


def test_plugins_import_public_modules_only(tree: SourceTree) -> None:
    """A third-party driver can do whatever ours do, because ours have no secret door."""
    assert tree.private() == []


def test_class_names_have_one_meaning(tree: SourceTree) -> None:
    """A reader who searches for a class finds one, or the same role in the same room."""
    assert tree.homonyms() == {}


def test_files_are_short(tree: SourceTree) -> None:
    """A file that has grown past this holds a second concept; the contract is exempt."""
    long = {
        each.name: each.lines
        for each in tree.longest()
        if each.lines > MOST_LINES and each.name != SPECIFICATION
    }
    assert long == {}


def test_module_docstrings_name_the_module(tree: SourceTree) -> None:
    """A relative clause ("What the driver ...") describes; it does not say what the module is."""
    vague = re.compile(r"(What|Who|Whoever|Whether|How|From|Where|When|Which)\b")
    tests = [*ROOT.glob("tests/**/*.py"), *ROOT.glob("plugins/*/tests/*.py")]
    paths = [*(ROOT / each.path for each in tree.modules.values()), *tests]
    paths += ROOT.glob("benchmarks/*.py")
    found = [
        str(path.relative_to(ROOT))
        for path in paths
        if vague.match(ast.get_docstring(ast.parse(path.read_text())) or "What")
    ]
    assert found == []


def test_map_names_every_folder(tree: SourceTree) -> None:
    """A newcomer does not find a folder that the map leaves out."""
    mapped = {name for row in rows("The map") for name in quoted(row[0])}
    folders = {
        path.relative_to(ROOT)
        for top in ("src/streamq", "plugins", "tests")
        for path in (ROOT / top).iterdir()
        if path.is_dir() and not path.name.startswith(("__", "."))
    }
    folders |= {Path(each) for each in tree.folders() if each.startswith("src/streamq/temporal/")}
    assert {str(each) for each in folders} <= {each.rstrip("/") for each in mapped}


def test_map_names_existing_places_only() -> None:
    """A map that leads to a file of last year is worse than none."""
    named = {name for row in rows("The map") for name in quoted(row[0])}
    assert sorted(name for name in named if not any(ROOT.glob(name.rstrip("/")))) == []


def test_directions_lead_to_files() -> None:
    """'If you want to ..., go to ...' saves nothing when the file has moved."""
    lines = [line for line in section("If you want to").splitlines() if line.startswith("* ")]
    assert len(lines) >= 10
    for line in lines:
        paths = [name for name in quoted(line) if "/" in name]
        assert paths, f"names no file: {line}"
        assert [name for name in paths if not any(ROOT.glob(name.rstrip("/")))] == [], line


def test_drivers_have_the_same_rooms(tree: SourceTree) -> None:
    """A reader who knows one driver finds the way in every other one."""
    shared: set[str] = set()
    own: dict[str, set[str]] = {}
    for row in rows("Rooms of a driver"):
        if row[0].startswith("`streamq-"):
            own.setdefault(quoted(row[0])[0], set()).update(quoted(row[1]))
        else:
            shared.update(quoted(row[0]))
    for module in tree.modules.values():
        if module.distribution == "streamq" or module.path.name.startswith("__"):
            continue
        inside = module.path.parts[module.path.parts.index("src") + 2 :]
        room = inside[0] if len(inside) == 1 else f"{inside[0]}/"
        allowed = shared | own.get(module.distribution, set())
        assert room in allowed, f"{module.path} is in no room that CONTRIBUTING lists"


def test_commands_that_call_temporal_leave_its_sdk(tree: SourceTree) -> None:
    """A process that ends while a thread of the SDK still needs the interpreter aborts: seldom."""
    calling = {
        name: module.text
        for name, module in tree.modules.items()
        if (name.startswith("streamq.cli.") or name.endswith("._command"))
        and re.search(r"endpoint\.connect\(|make_client\(", module.text)
    }
    assert {"streamq.cli._doctor", "streamq.cli._sweep"} <= {*calling}
    assert [name for name, text in calling.items() if "with leaving_sdk()" not in text] == []


@pytest.mark.parametrize(
    ("path", "line", "found"),
    [
        ("src/streamq/_errors.py", "from .driver import ChunkQueue", "circles"),
        ("src/streamq/driver.py", "from .cli import main", "upward"),
        ("src/streamq/gateway/_hub.py", "from streamq.temporal import poll", "upward"),
        ("src/streamq/testing/_suite.py", "from streamq.temporal import poll", "upward"),
        ("src/streamq/testing/_suite.py", "from .applications import record", "upward"),
        (
            "src/streamq/testing/applications/_record.py",
            "from streamq.gateway import create_app",
            "upward",
        ),
        ("src/streamq/reading/_reader.py", "from streamq.writing import _writer", "upward"),
        ("src/streamq/_errors.py", "from streamq.gateway import create_app", "upward"),
        (
            "src/streamq/temporal/producer/_signature.py",
            "from streamq.temporal import _plugin",
            "upward",
        ),
        ("plugins/streamq-sqs/src/streamq_sqs/_queue.py", "import streamq._errors", "private"),
        ("src/streamq/_events.py", "class StreamWriter: ...", "homonyms"),
        ("plugins/streamq-sqs/src/streamq_sqs/_queue.py", "class Tap: ...", "homonyms"),
    ],
)
def test_a_mistake_is_found(path: str, line: str, found: str) -> None:
    """A check that finds nothing in a broken tree would prove nothing about this one."""
    assert (ROOT / path).exists()
    assert getattr(SourceTree(added={path: f"\n{line}\n"}), found)()
