"""Opens queues, writers and readers by configuration and stream name; finds drivers.

Design: docs/design/contract.md.
"""
