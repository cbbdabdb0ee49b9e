"""Starts genuine Apache Kafka on loopback, in KRaft mode, without containers.

For the tests of streamq-kafka and for ``benchmarks/kafka.py``; no wheel contains it. Java 17 or
newer and Maven have to be on the machine. Maven downloads Kafka once, into its ordinary local
repository.

| module | contents |
|---|---|
| `_broker` | one process of Apache Kafka |
| `_cluster` | several processes that form one cluster |
| `_operator` | the work of an operator: topics, permissions, reading the log |
| `_requests` | the requests of an operator that aiokafka has not |
| `_jars` | finds Java, and resolves the jars through Maven |
| `_archive` | an archive of the classes, for a quicker start |

Design: docs/design/kafka.md.
"""

from ._broker import ApacheKafka
from ._cluster import ApacheCluster
from ._jars import KAFKA_VERSION, class_path, find_java
from ._operator import LogRecord, Operator

__all__ = [
    "KAFKA_VERSION",
    "ApacheCluster",
    "ApacheKafka",
    "LogRecord",
    "Operator",
    "class_path",
    "find_java",
]
