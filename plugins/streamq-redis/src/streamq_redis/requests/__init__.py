"""Requests to the server: nothing is remembered and nothing is retried here.

* ``_commands``: the commands that the driver sends, and the shape of their replies.
* ``_connection``: one connection that many tasks share.
* ``_handshake``: connects, logs in, and asks what the server and the connection can do.
* ``_shared_connection``: connects when a connection is needed, and again when it was lost.
"""
