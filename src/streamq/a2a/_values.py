"""Defines the values that an activity sends as chunks if it wants more than text, JSON and bytes.

Design: docs/design/a2a.md.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

KIND = "streamq_a2a"
"""Field by which the JSON of such a value is told from data."""


@dataclass(frozen=True, slots=True)
class StatusNote:
    """Tells the client what the agent is doing: a status update WORKING with a message.

    Attributes:
        text: The message.
        streamq_a2a: Marks the value; leave it alone.
    """

    text: str
    streamq_a2a: Literal["status"] = "status"


@dataclass(frozen=True, slots=True)
class ArtifactNote:
    """Describes the artifact of this stream. It travels with the next chunk.

    Attributes:
        name: Name for people; by default the topic.
        description: What it is.
        metadata: JSON for programs.
        streamq_a2a: Marks the value; leave it alone.
    """

    name: str = ""
    description: str = ""
    metadata: Mapping[str, Any] | None = None
    streamq_a2a: Literal["artifact"] = "artifact"


@dataclass(frozen=True, slots=True)
class FileReference:
    """Is a part of the artifact that the client fetches by itself: a large object elsewhere.

    Attributes:
        url: Where the client gets it.
        media_type: Its media type.
        filename: Its name.
        streamq_a2a: Marks the value; leave it alone.
    """

    url: str
    media_type: str = ""
    filename: str = ""
    streamq_a2a: Literal["file"] = "file"


@dataclass(frozen=True, slots=True)
class FileContent:
    """Is a part of the artifact: a small file with its content.

    Attributes:
        content: The content in base64; :meth:`of` encodes it.
        media_type: Its media type.
        filename: Its name.
        streamq_a2a: Marks the value; leave it alone.
    """

    content: str
    media_type: str = ""
    filename: str = ""
    streamq_a2a: Literal["content"] = "content"

    @classmethod
    def of(cls, data: bytes, media_type: str = "", filename: str = "") -> FileContent:
        """Return the part for the bytes of a file."""
        return cls(base64.b64encode(data).decode(), media_type, filename)


AgentValue: TypeAlias = StatusNote | ArtifactNote | FileReference | FileContent
"""What an activity may send besides text, JSON and bytes."""

_TYPES: dict[str, type[AgentValue]] = {
    "status": StatusNote,
    "artifact": ArtifactNote,
    "file": FileReference,
    "content": FileContent,
}


def read_value(value: object) -> AgentValue | None:
    """Return the typed value that a chunk holds; ``None`` if the chunk is data of the user.

    What has the mark and is none of these values is data, too: a task does not fail for it.
    """
    if isinstance(value, AgentValue):
        return value
    if not isinstance(value, dict) or (kind := _TYPES.get(str(value.get(KIND)))) is None:
        return None
    known = {each.name for each in fields(kind)}
    try:
        return kind(**{name: each for name, each in value.items() if name in known})
    except TypeError:
        return None
