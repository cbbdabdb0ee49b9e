"""Builds the JSON Schema of the generic workflow's inputs and results, for other languages."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import TypeAdapter

from streamq.temporal.activities._forward import ForwardRequest, ForwardResult
from streamq.temporal.activities._poll_request import PollRequest, PollResult
from streamq.temporal.activities._summarize import StreamSummary, SummaryRequest

from ._request import StreamProgress, StreamRequest, StreamResult

_WORKFLOW: dict[str, type] = {
    "input": StreamRequest,
    "result": StreamResult,
    "progress": StreamProgress,
}
_ACTIVITIES: dict[str, tuple[type, type]] = {
    "streamq.poll": (PollRequest, PollResult),
    "streamq.forward": (ForwardRequest, ForwardResult),
    "streamq.summary": (SummaryRequest, StreamSummary),
}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_FIELD = re.compile(r"^(\w+): (.*(?:\n {4,}.*)*)", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?([^`]+)`|``([^`]+)``")


def stream_schema() -> dict[str, Any]:
    """Return a JSON Schema whose ``properties`` are the workflow's input, result and progress.

    Its ``$defs`` also define the inputs and results of activities that other workflows may call.
    """
    properties = {name: {"$ref": f"#/$defs/{kind.__name__}"} for name, kind in _WORKFLOW.items()}
    kinds = [*_WORKFLOW.values(), *(kind for pair in _ACTIVITIES.values() for kind in pair)]
    definitions: dict[str, Any] = {}
    for kind in kinds:
        schema = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
        definitions |= {name: _described(found) for name, found in schema.pop("$defs", {}).items()}
        definitions[kind.__name__] = _described(schema, kind)
    return {
        "$schema": _DIALECT,
        "title": "streamq.Stream",
        "type": "object",
        "properties": properties,
        "$defs": definitions,
    }


def _described(schema: dict[str, Any], kind: type | None = None) -> dict[str, Any]:
    """Return a schema with the descriptions of its fields from the class's docstring."""
    if kind is None:
        return schema
    text = inspect.getdoc(kind) or ""
    summary, _, rest = text.partition("\n\nAttributes:\n")
    fields = inspect.cleandoc(rest.partition("\n\n")[0])
    found = {name: _plain(meaning) for name, meaning in _FIELD.findall(fields)}
    properties = {
        name: {**field, "description": found[name]} if name in found else field
        for name, field in schema.get("properties", {}).items()
    }
    return {
        **schema,
        "description": _plain(summary),
        "properties": properties,
        "additionalProperties": False,
    }


def _plain(text: str) -> str:
    return " ".join(_ROLE.sub(lambda match: match[1] or match[2], text).split())
