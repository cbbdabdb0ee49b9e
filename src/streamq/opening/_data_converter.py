"""Loads the codec of the data converter that ``STREAMQ_DATA_CONVERTER`` names.

Temporal's data converters are known to :mod:`streamq.temporal` only, which the core does not
import: it is found by an entry point, and loaded when the setting is used.

Design: docs/design/values.md.
"""

from __future__ import annotations

import functools
import importlib.metadata
import pkgutil
from typing import Protocol, cast

from streamq._errors import ConfigurationError
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.records._codec import Codec

GROUP = "streamq.codecs"
"""Entry points that load the codec of a data converter; each one is a :class:`CodecLoader`."""

_NAME = "temporal"
_TARGET = "streamq.temporal._serializer:codec_of"


class CodecLoader(Protocol):
    """Loads the codec of a data converter that is given by name."""

    def __call__(self, name: str, stream: StreamId, namespace: str) -> Codec | None:
        """Return the codec of ``module:name`` for a stream of a Temporal namespace.

        Raises:
            ConfigurationError: It cannot be imported, or is not a data converter.
        """
        ...


def configured_codec(settings: Settings, stream: StreamId) -> Codec | None:
    """Return the codec that ``STREAMQ_DATA_CONVERTER`` names, for a stream; ``None`` without one.

    Raises:
        ConfigurationError: The setting is wrong; the message says why.
    """
    if not settings.data_converter:
        return None
    try:
        load = _codec_loader()
    except ImportError as exc:
        raise ConfigurationError(
            f"STREAMQ_DATA_CONVERTER={settings.data_converter!r} needs Temporal's SDK ({exc}); "
            "run: pip install 'streamq[temporal]'"
        ) from exc
    return load(settings.data_converter, stream, settings.temporal_namespace)


@functools.cache  # entry points are read from disk, and a gateway opens many readers
def _codec_loader() -> CodecLoader:
    for point in importlib.metadata.entry_points(group=GROUP, name=_NAME):
        return cast(CodecLoader, point.load())
    # A frozen program has no metadata.
    return cast(CodecLoader, pkgutil.resolve_name(_TARGET))
