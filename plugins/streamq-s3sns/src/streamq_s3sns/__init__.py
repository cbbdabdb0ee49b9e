"""Amazon S3 backend for streamq: immutable segments, and SNS to wake readers."""

from ._driver import S3SnsDriver
from ._handover import HandOver, open_hand_over
from ._lookup import ObjectNotFoundError
from ._reference import ObjectReference
from ._settings import S3SnsSettings

__all__ = [
    "HandOver",
    "ObjectNotFoundError",
    "ObjectReference",
    "S3SnsDriver",
    "S3SnsSettings",
    "open_hand_over",
]
