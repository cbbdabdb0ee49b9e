"""Reads settings that are lists: what stands between commas, without the spaces around it.

Design: docs/design/configuration.md.
"""

from __future__ import annotations


def listed(text: str) -> list[str]:
    """Return the items of a list; empty ones are left out."""
    return [item for item in map(str.strip, text.split(",")) if item]
