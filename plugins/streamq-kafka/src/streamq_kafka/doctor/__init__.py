"""Examines the topics for ``streamq doctor``, and creates them for ``streamq doctor --create``.

| module | contents |
|---|---|
| `_findings` | examines the cluster and the topics and reports what is missing or wrong |
| `_brokers_examined` | examines whether each broker answers, and is new enough |
| `_config_problems` | judges the configuration of a topic |
| `_creation` | creates the topics that are missing |

Design: docs/design/kafka.md.
"""
