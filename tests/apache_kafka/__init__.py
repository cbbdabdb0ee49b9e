"""Genuine Apache Kafka on loopback, in KRaft mode: for tests and benchmarks, without containers.

Java 17 or newer and Maven have to be on the machine; Maven brings Kafka itself, once, into its
ordinary local repository.
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
