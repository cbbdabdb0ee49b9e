"""``streamq plugin``: makes the package of a new driver, and keeps it in step with streamq.

* ``_command``: the commands ``new``, ``update`` and ``readme``.
* ``_plugin_names``: which names a driver can have, and what is named after it.
* ``_template``: runs copier on the template; has the templates of earlier releases for updates.
* ``_readme``: the tables of a plugin's README.
* ``template/``: the template, as copier takes it. ``earlier/``: those of earlier releases.

Design: docs/design/scaffold.md.
"""
