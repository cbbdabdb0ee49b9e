"""Sends requests to the brokers: one method for each kind of request.

| module | contents |
|---|---|
| `_cluster` | fetches records, lists offsets, and asks each partition's leader |
| `_metadata` | knows which partitions a topic has and which broker leads each |
| `_end_offsets` | finds where partitions end now, with one request for many readers |
| `_connections` | opens and closes connections, and sends a request over one |
| `_access` | connects and logs in with what is valid now |
| `_brokers` | knows the brokers of the cluster, for all clients of a queue |
| `_throttling` | waits for brokers that delay our requests |
| `_client` | replaces behaviour of aiokafka's client that would hurt streamq |
| `_tokens` | gets OAUTHBEARER tokens from a function of the application |
| `_fetched` | unpacks what a broker returned of one partition |
| `_fetch_waits` | decides how long a broker may search for records |
| `_leader_checks` | rejects answers of a leader that is not up to date yet |
| `_error_codes` | turns a broker's error code into an exception of aiokafka |
| `_coalescing` | answers the same question of many tasks with one request |
| `_topic_ids` | names topics by their id, so that one that was created anew is another one |
| `_permissions` | asks which operations the brokers permit us |
| `_topic_admin` | reads the configuration of topics, and creates topics |

Design: docs/design/kafka.md.
"""
