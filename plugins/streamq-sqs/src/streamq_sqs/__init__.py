"""Amazon SQS backend for streamq: one queue for each stream, one reader."""

from ._driver import SqsDriver
from ._settings import SqsSettings

__all__ = ["SqsDriver", "SqsSettings"]
