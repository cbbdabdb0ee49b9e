"""Kafka backend for streamq: many streams on the partitions of one topic.

Design: docs/design/kafka.md.
"""

from ._driver import KafkaDriver
from ._settings import KafkaSettings

__all__ = ["KafkaDriver", "KafkaSettings"]
