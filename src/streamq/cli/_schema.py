"""``streamq schema``: prints the JSON Schema of the workflow ``streamq.Stream``."""

from __future__ import annotations

from ._terminal import needs_extra, show_json


def schema() -> None:
    """Print the JSON Schema of the workflow streamq.Stream.

    It describes the workflow's input, its result and the answer of its query progress, and the
    activities that workflows in any language may call.

    \b
    Examples:
      streamq schema
      streamq schema > streamq-stream.schema.json
    """
    with needs_extra("temporal"):
        from streamq.temporal.generic._schema import stream_schema
    show_json(stream_schema())
