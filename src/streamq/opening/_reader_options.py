"""Types the options of ``open_reader``.

Design: docs/design/reading.md.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, TypedDict

from streamq._settings import Settings
from streamq.driver import ChunkQueue
from streamq.over_http._token import Token
from streamq.records._codec import Codec


class ReaderOptions(TypedDict, total=False):
    """Options of :func:`open_reader`, where they are described, that do not change its type."""

    from_: Literal["beginning", "last", "tail"] | str
    queue: ChunkQueue | None
    settings: Settings | None
    must_exist: bool
    idle_seconds: float | None
    codec: Codec | None
    commits: bool
    require: Collection[str]
    token: Token | None
