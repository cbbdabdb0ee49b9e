"""Sends requests to Temporal: one method each; nothing is remembered, nothing is retried.

* ``_connection``: the client, which is made anew when a server refuses us, and calls with a
  deadline that closing the queue ends.
* ``_hosts``: the requests about host workflows.

Design: docs/design/workflow-streams.md.
"""
