"""Records which streams exist, where each begins, and which epoch is its newest.

| module | contents |
|---|---|
| `_directory` | finds streams, opens epochs, renews and removes entries |
| `_cache` | keeps the entries in memory and reads new ones when they are needed |
| `_listing` | encodes, decodes and merges the entries of a stream |

Design: docs/design/kafka.md.
"""
