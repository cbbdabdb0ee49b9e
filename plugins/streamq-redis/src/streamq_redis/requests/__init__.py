"""Requests to the server: nothing is remembered and nothing is retried here.

* ``_commands``: the commands that the driver sends, and the shape of their replies.
* ``_connection``: one connection that many tasks share.
* ``_connection_group``: connects when a connection is needed, and again when it was lost, and keeps
  all connections of a queue on one server.
* ``_handshake``: connects, logs in, and asks what the server and the connection can do.
* ``_login``: asks for credentials for each connection.
* ``_resolver``: resolves the server's name, and connects a socket to it.

Design: docs/design/redis.md.
"""
