"""A data converter for tests: the SDK's own, and pickled objects, which only it decodes."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
)


@dataclasses.dataclass
class Point:
    x: float
    y: float


class Opaque:
    """A class whose objects have no JSON form."""


class PickledConverter(EncodingPayloadConverter):
    """Pickles points and opaque objects."""

    @property
    def encoding(self) -> str:
        return "binary/pickle"

    def to_payload(self, value: Any) -> Payload | None:
        if not isinstance(value, Point | Opaque | complex):
            return None
        return Payload(metadata={"encoding": b"binary/pickle"}, data=pickle.dumps(value))

    def from_payload(self, payload: Payload, type_hint: type | None = None) -> Any:
        return pickle.loads(payload.data)


class PicklingPayloadConverter(CompositePayloadConverter):
    """Pickles what it can, and else does as the SDK."""

    def __init__(self) -> None:
        super().__init__(
            PickledConverter(), *DefaultPayloadConverter.default_encoding_payload_converters
        )


CONVERTER = dataclasses.replace(
    DataConverter.default, payload_converter_class=PicklingPayloadConverter
)
