"""Streams the output of work that runs on Temporal to readers while the work runs.

This is the application API. Driver authors import :mod:`streamq.driver` and :mod:`streamq.testing`;
Temporal users import :mod:`streamq.temporal`. The HTTP gateway is :mod:`streamq.gateway`.

Design: docs/design/structure.md.
"""

from ._capabilities import Capabilities, LatencyClass
from ._erase import erase_streams
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
    DriverError,
    FencedError,
    ForeignLoopError,
    IdleTimeoutError,
    NotAwaitedError,
    ProducerGoneError,
    QuotaError,
    ReplayError,
    SealedError,
    SerializationError,
    StorageFullError,
    StoryTooLargeError,
    StreamCancelledError,
    StreamFailedError,
    StreamNotFoundError,
    StreamqError,
    StreamsLeftError,
    ThrottledError,
    TrimmedError,
)
from ._events import Chunk, Event, EventOrGap, Gap, Reset, Seal, SealState, StreamId
from ._settings import Settings, load_settings
from ._statistics import ReaderStatistics, WriterStatistics
from .opening._drivers import installed_drivers, load_driver
from .opening._gateway import open_gateway
from .opening._open import describe, open_queue, open_reader, open_writer
from .opening._open_readers import open_readers
from .opening._opening import Opening
from .opening._read_story import read_story
from .reading._reader import StreamReader
from .reading._readers import StreamReaders
from .reading._story import Story
from .reading._stream_event import ReadFailure, StreamEvent, StreamFound
from .reading._tail import StreamStatus
from .records._codec import Codec
from .records._values import Encoding, Serializer
from .writing._blocking import BlockingStreamWriter
from .writing._policies import OnFull, OnRetry
from .writing._writer import StreamWriter

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
    "DriverError",
    "Encoding",
    "Event",
    "EventOrGap",
    "FencedError",
    "ForeignLoopError",
    "Gap",
    "IdleTimeoutError",
    "LatencyClass",
    "NotAwaitedError",
    "OnFull",
    "OnRetry",
    "Opening",
    "ProducerGoneError",
    "QuotaError",
    "ReadFailure",
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
    "Story",
    "StoryTooLargeError",
    "StreamCancelledError",
    "StreamEvent",
    "StreamFailedError",
    "StreamFound",
    "StreamId",
    "StreamNotFoundError",
    "StreamReader",
    "StreamReaders",
    "StreamStatus",
    "StreamWriter",
    "StreamqError",
    "StreamsLeftError",
    "ThrottledError",
    "TrimmedError",
    "WriterStatistics",
    "describe",
    "erase_streams",
    "installed_drivers",
    "load_driver",
    "load_settings",
    "open_gateway",
    "open_queue",
    "open_reader",
    "open_readers",
    "open_writer",
    "read_story",
]
