"""Streams the output of work that runs on Temporal to readers while the work runs.

This is the application API. Driver authors import :mod:`streamq.driver` and :mod:`streamq.testing`;
Temporal users import :mod:`streamq.temporal`. The HTTP gateway is :mod:`streamq.gateway`.

Design: docs/design/structure.md.
"""

from ._blocking import BlockingStreamWriter
from ._capabilities import Capabilities, LatencyClass
from ._codec import Codec
from ._drivers import installed_drivers, load_driver
from ._errors import (
    AccessDeniedError,
    BackendError,
    BackendLoadError,
    BackendNotFoundError,
    BackendUnavailableError,
    BufferFullError,
    CapabilityError,
    ChunkTooLargeError,
    ClosedError,
    ConfigurationError,
    CorruptRecordError,
    CursorError,
    FencedError,
    IdleTimeoutError,
    ProducerGoneError,
    ReplayError,
    SealedError,
    SerializationError,
    StorageFullError,
    StreamCancelledError,
    StreamFailedError,
    StreamNotFoundError,
    StreamqError,
    ThrottledError,
    TrimmedError,
)
from ._events import Chunk, Event, Gap, Reset, Seal, SealState, StreamId
from ._open import describe, open_queue, open_reader, open_writer
from ._opening import Opening
from ._policies import OnFull, OnRetry
from ._reader import StreamReader
from ._settings import Settings, load_settings
from ._statistics import ReaderStatistics, WriterStatistics
from ._tail import StreamStatus
from ._values import Encoding, Serializer
from ._writer import StreamWriter

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "BackendError",
    "BackendLoadError",
    "BackendNotFoundError",
    "BackendUnavailableError",
    "BlockingStreamWriter",
    "BufferFullError",
    "Capabilities",
    "CapabilityError",
    "Chunk",
    "ChunkTooLargeError",
    "ClosedError",
    "Codec",
    "ConfigurationError",
    "CorruptRecordError",
    "CursorError",
    "Encoding",
    "Event",
    "FencedError",
    "Gap",
    "IdleTimeoutError",
    "LatencyClass",
    "OnFull",
    "OnRetry",
    "Opening",
    "ProducerGoneError",
    "ReaderStatistics",
    "ReplayError",
    "Reset",
    "Seal",
    "SealState",
    "SealedError",
    "SerializationError",
    "Serializer",
    "Settings",
    "StorageFullError",
    "StreamCancelledError",
    "StreamFailedError",
    "StreamId",
    "StreamNotFoundError",
    "StreamReader",
    "StreamStatus",
    "StreamWriter",
    "StreamqError",
    "ThrottledError",
    "TrimmedError",
    "WriterStatistics",
    "describe",
    "installed_drivers",
    "load_driver",
    "load_settings",
    "open_queue",
    "open_reader",
    "open_writer",
]
