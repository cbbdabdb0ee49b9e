"""Writes a stream: takes it over, packs chunks into records, sends them and seals once.

Design: docs/design/writing.md.
"""
