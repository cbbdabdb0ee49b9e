"""Examines the server for ``streamq doctor``; changes nothing.

* ``_examination``: puts the findings together.
* ``_facts``: asks the server for facts about itself.
* ``_keeping``: judges what the server does to records that it has acknowledged.
* ``_permissions``: tries each command that the driver uses, on a key that does not exist.
* ``_serving``: judges whether the server will go on answering, and whether to these requests.

Design: docs/design/redis.md.
"""
