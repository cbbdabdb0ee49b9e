"""Sends many streams on one connection, each with its own place, ending and errors.

Design: docs/design/many-streams.md.
"""
