"""Amazon S3 backend for streamq: immutable segments, and SNS to wake readers.

Design: docs/design/s3sns.md.
"""

from ._driver import S3SnsDriver
from ._errors import ObjectNotFoundError
from ._settings import S3SnsSettings
from .large_objects._hand_over import HandOver, open_hand_over
from .large_objects._reference import ObjectReference

__all__ = [
    "HandOver",
    "ObjectNotFoundError",
    "ObjectReference",
    "S3SnsDriver",
    "S3SnsSettings",
    "open_hand_over",
]
