"""Answers requests: one module for each kind of answer; ``gateway/_routes.py`` has their addresses.

Design: docs/design/gateway.md.
"""
