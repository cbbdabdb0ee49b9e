"""Reads what is stored in the partitions of the records.

| module | contents |
|---|---|
| `_partition_reader` | finds the records of one stream in a partition |
| `_page_cache` | keeps older records in memory for all readers that need them |

Design: docs/design/kafka.md.
"""
