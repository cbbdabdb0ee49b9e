"""Every reference from a page or a source file to a page leads somewhere."""

from __future__ import annotations

import ast
import os
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENTRANCE = ROOT / "docs/design.md"
DESIGN_PAGES = sorted(ROOT.glob("docs/design/*.md"))

_FENCE = re.compile(r"^(`{3,})[^\n]*\n.*?^\1`*[ ]*$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(\s*<?([^()\s<>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)(?: +#+)? *$", re.MULTILINE)
_MENTION = re.compile(r"(?<![\w/])docs/[\w./-]+\.md(?:#[\w-]+)?")
_CLASS = re.compile(r"^class (\w+)", re.MULTILINE)
_WITH_MENTIONS = (".py", ".toml", ".md", ".yaml", ".yml", ".json")


def files_named(*suffixes: str) -> list[Path]:
    """Return the project's files with these suffixes, without environments and caches."""
    found: list[Path] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [each for each in folders if not each.startswith(".")]
        found += [Path(folder, each) for each in names if Path(each).suffix in suffixes]
    return sorted(found)


def prose(text: str) -> str:
    """Return a page without its code, in which brackets are no links and # is no heading."""
    return _FENCE.sub("", text)


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose(page.read_text("utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        repeats = (f"{slug}-{number}" for number in range(1, len(found) + 2))
        found.add(
            slug if slug not in found else next(each for each in repeats if each not in found)
        )
    return found


def problem(target: str, base: Path, page: Path) -> str | None:
    """Return what is wrong with a reference, or nothing.

    Args:
        target: A path, an anchor or both.
        base: The folder that the path begins in.
        page: The file that the anchor is about, if there is no path.
    """
    path, _, anchor = target.partition("#")
    found = (base / path).resolve() if path else page
    if not found.exists():
        return f"{target}: there is no {path}"
    if anchor and found.suffix == ".md" and anchor not in anchors(found):
        return f"{target}: {path or page.name} has no heading with that anchor"
    return None


def name_of(path: Path) -> str:
    """Return a file's name within the project."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", files_named(".md"), ids=name_of)
def test_links_of_a_page_lead_to_a_file_and_a_heading(page: Path) -> None:
    """A newcomer who follows a link arrives at the paragraph that the link promises."""
    text = _CODE.sub("", prose(page.read_text("utf-8")))
    targets = [each for each in _LINK.findall(text) if not re.match(r"[a-z]+:", each)]
    problems = [problem(each, page.parent, page) for each in targets]
    assert [each for each in problems if each] == []


def test_pages_that_files_mention_exist() -> None:
    """A docstring, a comment or a message sends its reader to a page that is there."""
    problems = [
        f"{name_of(path)}: {wrong}"
        for path in [*files_named(*_WITH_MENTIONS), ROOT / "Makefile"]
        for mention in _MENTION.findall(path.read_text("utf-8"))
        if (wrong := problem(mention, ROOT, path))
    ]
    assert problems == []


def test_entrance_lists_every_design_page() -> None:
    """A decision on a page that no list names is as good as lost."""
    targets = _LINK.findall(ENTRANCE.read_text("utf-8"))
    listed = {(ENTRANCE.parent / each.partition("#")[0]).resolve() for each in targets}
    assert [name_of(page) for page in DESIGN_PAGES if page not in listed] == []


def test_glossary_names_classes_that_exist() -> None:
    """A word of the glossary leads to a class of that name, also after a rename."""
    table = ENTRANCE.read_text("utf-8").partition("| class | meaning | where |")[2]
    named = {
        name
        for row in table.partition("\n\n")[0].splitlines()
        for name in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    sources = [*ROOT.glob("src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]
    defined = {each for path in sources for each in _CLASS.findall(path.read_text("utf-8"))}
    assert named
    assert named - defined == set()


def design_pages(module: Path) -> list[str]:
    """Return the design pages that the last line of a module's docstring names."""
    docstring = ast.get_docstring(ast.parse(module.read_text("utf-8"))) or ""
    last = docstring.rpartition("\n")[2]
    return _MENTION.findall(last) if last.startswith("Design: ") and last.endswith(".") else []


def explaining(module: Path, source: Path) -> list[Path]:
    """Return the files that may name a module's page: itself and the packages above it.

    The package ``streamq`` is about everything, and so explains nothing but itself.
    """
    above = [folder / "__init__.py" for folder in module.parents if source in folder.parents]
    return [module, *(each for each in above if each.parent != ROOT / "src/streamq")]


def test_every_module_names_the_page_that_explains_it() -> None:
    """A reader of the source finds the reasons without searching all pages for them."""
    sources = [ROOT / "src", *sorted(ROOT.glob("plugins/*/src"))]
    unexplained = [
        name_of(module)
        for source in sources
        for module in sorted(source.rglob("*.py"))
        if not any(design_pages(each) for each in explaining(module, source) if each.exists())
    ]
    assert unexplained == []
