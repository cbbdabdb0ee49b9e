"""Amazon S3 backend for streamq: immutable segments, and SNS to wake readers."""

from ._driver import S3SnsDriver
from ._settings import S3SnsSettings

__all__ = ["S3SnsDriver", "S3SnsSettings"]
