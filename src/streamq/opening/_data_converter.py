"""Loads the serializer and the codec of the converter that ``STREAMQ_DATA_CONVERTER`` names.

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
from streamq.records._values import Serializer, T, serializer_for

GROUP = "streamq.converters"
"""Entry points that load what a data converter decodes with; each is a :class:`Loader`."""

_NAME = "temporal"
_TARGET = "streamq.temporal._serializer:named_conversion"


class Loader(Protocol):
    """Loads the serializer and the codec of a data converter that is given by name."""

    def __call__(
        self, name: str, stream: StreamId, namespace: str, value_type: type[T] | None
    ) -> tuple[Serializer[T], Codec | None]:
        """Return what decodes a stream of a Temporal namespace with ``module:name``.

        Raises:
            ConfigurationError: It cannot be imported, or is not a data converter.
        """
        ...


def configured_conversion(
    settings: Settings, stream: StreamId, value_type: type[T] | None = None
) -> tuple[Serializer[T], Codec | None]:
    """Return what decodes the values and the records of a stream, by ``STREAMQ_DATA_CONVERTER``.

    Without that setting there is no codec, and values are decoded by :func:`serializer_for`.

    Raises:
        ConfigurationError: The setting is wrong; the message says why.
    """
    if not settings.data_converter:
        return serializer_for(value_type), None
    try:
        load = _loader()
    except ImportError as exc:
        raise ConfigurationError(
            f"STREAMQ_DATA_CONVERTER={settings.data_converter!r} needs Temporal's SDK ({exc}); "
            "run: pip install 'streamq[temporal]'"
        ) from exc
    return load(settings.data_converter, stream, settings.temporal_namespace, value_type)


@functools.cache  # entry points are read from disk, and a gateway opens many readers
def _loader() -> Loader:
    for point in importlib.metadata.entry_points(group=GROUP, name=_NAME):
        return cast(Loader, point.load())
    # A frozen program has no metadata.
    return cast(Loader, pkgutil.resolve_name(_TARGET))
