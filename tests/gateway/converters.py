"""A data converter for tests: the SDK's own, and pickled objects, which only it decodes."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultPayloadConverter,
    EncodingPayloadConverter,
    PayloadCodec,
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


class Encryption(PayloadCodec):
    """Encrypts payloads with a key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Encrypt."""
        return [
            Payload(
                metadata={"encoding": b"binary/encrypted"},
                data=self._cipher.encrypt(bytes(12), each.SerializeToString(), None),
            )
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Decrypt; another key raises."""
        return [
            Payload.FromString(self._cipher.decrypt(bytes(12), each.data, None))
            for each in payloads
        ]


ACME = dataclasses.replace(DataConverter.default, payload_codec=Encryption(b"a" * 32))
GLOBEX = dataclasses.replace(DataConverter.default, payload_codec=Encryption(b"g" * 32))
