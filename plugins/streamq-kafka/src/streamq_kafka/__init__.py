"""Kafka backend for streamq: many streams on the partitions of one topic."""
