"""Talks to the server: connections, what runs on them, and SQL.

Design: docs/design/postgres.md.
"""
