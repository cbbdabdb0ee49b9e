"""Reads a stream: records to numbered events, cursors, and where a stream stands.

Design: docs/design/reading.md.
"""
