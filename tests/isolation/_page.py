"""Reads the blocks of commands and policies of the page about tenants."""

from __future__ import annotations

import re
from pathlib import Path

_PAGE = Path(__file__).parents[2] / "docs/tenants.md"
_SECTION = re.compile(r"^## (?P<name>\w+)\n(?P<text>.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def code_blocks(backend: str) -> list[str]:
    """Return the blocks of code in the section of a backend, in their order."""
    sections = {each["name"]: each["text"] for each in _SECTION.finditer(_PAGE.read_text())}
    blocks = _BLOCK.findall(sections[backend])
    assert blocks, f"the section {backend} of {_PAGE.name} has no block of code"
    return blocks
