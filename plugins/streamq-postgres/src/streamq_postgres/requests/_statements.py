"""Has the statements that the driver sends, for the schema of its settings.

Values are always sent apart from the statement. Every statement that reads a stream leaves out
what has expired, by the server's clock.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

from psycopg import sql

GREETING = """
SELECT pg_backend_pid(), pg_is_in_recovery(), pg_postmaster_start_time()::text,
    current_setting('server_version_num')::bigint, current_setting('fsync'),
    current_setting('synchronous_commit'), current_setting('autovacuum'),
    (
        SELECT bool_and(c.relpersistence = 'p')
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %b AND c.relname IN ('streams', 'records', 'buried')
    ),
    (
        SELECT obj_description(c.oid, 'pg_class')
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = %b AND c.relname = 'streams' AND c.relkind = 'r'
    )
"""

# A subquery for each stream, so that the index gives its records in order. The server knows how
# large the stream's records are on average: it reads about as many rows as fit.
_READ = """
SELECT y.epoch, y.idx, y.data, y.found, l.most
FROM {schema}.streams AS s
CROSS JOIN LATERAL (
    SELECT least(%b, 16 + 2 * %b / (1 + s.size_bytes / greatest(s.records, 1))) AS most
) AS l
CROSS JOIN LATERAL (
    SELECT x.epoch, x.idx, x.data, count(*) OVER () AS found, row_number() OVER w AS at,
        sum(octet_length(x.data)) OVER w AS upto
    FROM (
        SELECT r.epoch, r.idx, r.data FROM {schema}.records AS r
        WHERE r.stream = s.id AND (r.epoch, r.idx) > (%b, %b)
        ORDER BY r.epoch, r.idx LIMIT l.most
    ) AS x
    WINDOW w AS (ORDER BY x.epoch, x.idx)
) AS y
WHERE s.tenant = %b AND s.name = %b AND s.expires_at > statement_timestamp()
    AND (y.at = 1 OR y.upto <= %b)
ORDER BY y.epoch, y.idx
"""

_FOLLOW = """
SELECT f.number, r.epoch, r.idx, r.data
FROM unnest(%b, %b, %b, %b, %b) AS f (number, tenant, name, epoch, idx)
JOIN {schema}.streams AS s
    ON s.tenant = f.tenant AND s.name = f.name AND s.expires_at > statement_timestamp()
    AND (s.epoch, s.idx) > (f.epoch, f.idx)
CROSS JOIN LATERAL (
    SELECT x.epoch, x.idx, x.data FROM {schema}.records AS x
    WHERE x.stream = s.id AND (x.epoch, x.idx) > (f.epoch, f.idx)
    ORDER BY x.epoch, x.idx LIMIT %b
) AS r
"""

# The same for one stream, which is the most frequent form by far.
_FOLLOW_ONE = """
SELECT 0, r.epoch, r.idx, r.data
FROM {schema}.streams AS s
CROSS JOIN LATERAL (
    SELECT x.epoch, x.idx, x.data FROM {schema}.records AS x
    WHERE x.stream = s.id AND (x.epoch, x.idx) > (%b, %b)
    ORDER BY x.epoch, x.idx LIMIT %b
) AS r
WHERE s.tenant = %b AND s.name = %b AND s.expires_at > statement_timestamp()
"""

_DESCRIBE = """
SELECT s.records, s.size_bytes,
    extract(epoch FROM s.expires_at - statement_timestamp())::double precision,
    r.epoch, r.idx, r.data
FROM {schema}.streams AS s
LEFT JOIN LATERAL (
    SELECT x.epoch, x.idx, x.data FROM {schema}.records AS x
    WHERE x.stream = s.id ORDER BY x.epoch DESC, x.idx DESC LIMIT %b
) AS r ON true
WHERE s.tenant = %b AND s.name = %b AND s.expires_at > statement_timestamp()
ORDER BY r.epoch DESC, r.idx DESC
"""

_LIST = """
SELECT s.name, s.records, s.size_bytes,
    extract(epoch FROM s.expires_at - statement_timestamp())::double precision
FROM {schema}.streams AS s
WHERE s.tenant = %b AND s.name > %b AND s.name >= %b AND s.name < %b
    AND s.expires_at > statement_timestamp()
ORDER BY s.name LIMIT %b
"""

_BURY = """
WITH gone AS (
    DELETE FROM {schema}.streams AS s WHERE s.tenant = %b AND s.name = %b RETURNING s.id
)
INSERT INTO {schema}.buried (stream) SELECT g.id FROM gone AS g RETURNING stream
"""

_APPEND = (
    "CALL {schema}.append_1(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, %b, NULL)"
)
_APPEND_ONE = "CALL {schema}.append_one_1(%b, %b, %b, %b, %b, %b, %b, %b, %b, NULL)"
_ERASE = "SELECT {schema}.erase_1(%b, %b)"
_SWEEP = "SELECT gone, is_done FROM {schema}.sweep_1(%b, %b)"


class Statements:
    """The statements for one schema.

    Args:
        schema: Its name.
    """

    def __init__(self, schema: str) -> None:
        def made(text: str) -> bytes:
            # Rendered once: psycopg would do it for each call.
            return sql.SQL(text).format(schema=sql.Identifier(schema)).as_bytes(None)

        self.append = made(_APPEND)
        self.append_one = made(_APPEND_ONE)
        self.read = made(_READ)
        self.follow = made(_FOLLOW)
        self.follow_one = made(_FOLLOW_ONE)
        self.describe = made(_DESCRIBE)
        self.list = made(_LIST)
        self.bury = made(_BURY)
        self.erase = made(_ERASE)
        self.sweep = made(_SWEEP)
