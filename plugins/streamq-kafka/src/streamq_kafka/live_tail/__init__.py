"""Follows the ends of partitions for all readers of the process.

| module | contents |
|---|---|
| `_live_tail` | follows partitions with one long fetch to each broker |
| `_tap` | keeps the newest records of one stream, with the readers that wait |

Design: docs/design/kafka.md.
"""
