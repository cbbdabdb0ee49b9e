"""Follows the ends of partitions for all readers of the process.

| module | contents |
|---|---|
| `_live_tail` | follows partitions with one long fetch to each broker |
| `_partition_taps` | divides the new records of a partition among its streams |

Design: docs/design/kafka.md.
"""
