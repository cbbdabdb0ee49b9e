"""Examines what a server needs to carry streams, and creates it.

Design: docs/design/postgres.md.
"""
