"""``streamq schema``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from streamq.temporal import StreamProgress, StreamRequest, StreamResult

from .command import Inside

PUBLISHED = Path(__file__).parents[2] / "docs/streamq-stream.schema.json"


def test_it_prints_what_is_published(inside: Inside) -> None:
    """Whoever generates types from it must get the same from the command and from the page."""
    assert json.loads(inside.run("schema").out) == json.loads(PUBLISHED.read_text())


def test_every_field_is_described() -> None:
    """People of other languages have nothing but this."""
    definitions = json.loads(PUBLISHED.read_text())["$defs"]
    for kind in (StreamRequest, StreamResult, StreamProgress):
        found = definitions[kind.__name__]["properties"]
        assert list(found) == [field.name for field in dataclasses.fields(kind)]
        assert [name for name, field in found.items() if not field.get("description")] == []
