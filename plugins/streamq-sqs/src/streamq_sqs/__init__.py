"""Amazon SQS backend for streamq: one queue for each stream, one reader.

Design: docs/design/sqs.md.
"""

from ._driver import SqsDriver
from ._settings import SqsSettings

__all__ = ["SqsDriver", "SqsSettings"]
