"""Reads what is stored in the partitions of the records.

| module | contents |
|---|---|
| `_partition_reader` | divides a partition among its streams: its live end, and what came before |
| `_page_cache` | keeps older records in memory for all readers that need them |
| `_end_offsets` | finds where partitions end now |

Design: docs/design/kafka.md.
"""
