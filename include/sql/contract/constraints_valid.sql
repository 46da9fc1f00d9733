-- What PostgreSQL calls valid is valid: each CHECK and NOT NULL of a table, each CHECK and NOT NULL of a domain that a
-- column has, and the bounds of each partition hold for every row. One read of each table.
-- A constraint that is NOT VALID is not judged: its owner said that old rows may break it. Nor are foreign tables, whose
-- constraints nobody enforces, and whose rows lie elsewhere.
-- Next: look for such rows on the source with SELECT … WHERE NOT (the constraint). There too: correct them there (a
-- disabled constraint, a function in it that was changed since). Only here: call this backup damaged, drill an older one.
WITH RECURSIVE
tables AS MATERIALIZED (
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, c.relispartition
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
),
columns AS MATERIALIZED (
    SELECT t.oid, a.attname, a.attnotnull, a.atttypid
      FROM tables t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
),
-- From the type of a column, if it is a domain, down to the type at the bottom, which is none.
types AS (
    SELECT a.oid, a.attname, y.oid AS type, y.typtype, y.typbasetype
      FROM columns a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
     WHERE y.typtype = 'd'
     UNION ALL
    SELECT below.oid, below.attname, y.oid, y.typtype, y.typbasetype
      FROM types below JOIN pg_catalog.pg_type y ON y.oid = below.typbasetype
     WHERE below.typtype = 'd'
),
-- Each condition is true for a row that breaks the constraint.
conditions AS MATERIALIZED (
    SELECT k.conrelid AS oid, k.conname::text AS name, format('NOT (%s)', pg_get_expr(k.conbin, k.conrelid)) AS condition
      FROM pg_catalog.pg_constraint k
     WHERE k.contype = 'c' AND k.convalidated AND k.conrelid <> 0
     UNION ALL
    -- IS NULL would be true for a row of NULLs, too, which the constraint allows.
    SELECT a.oid, format('%I NOT NULL', a.attname), format('%I IS NOT DISTINCT FROM NULL', a.attname)
      FROM columns a
     WHERE a.attnotnull
     UNION ALL
    SELECT d.oid, format('%I, domain %s NOT NULL', d.attname, d.type::regtype),
           format('%I IS NOT DISTINCT FROM NULL', d.attname)
      FROM types d JOIN pg_catalog.pg_type y ON y.oid = d.type
     WHERE d.typtype = 'd' AND y.typnotnull
     UNION ALL
    SELECT d.oid, format('%I, domain %s: %s', d.attname, d.type::regtype, k.conname),
           format(
               'EXISTS (SELECT FROM (SELECT %I::%s AS value) AS of_domain WHERE NOT (%s))',
               d.attname, format_type(bottom.type, -1), pg_get_expr(k.conbin, 0)
           )
      FROM types d
      JOIN pg_catalog.pg_constraint k ON k.contypid = d.type AND k.contype = 'c' AND k.convalidated
      JOIN types bottom ON bottom.oid = d.oid AND bottom.attname = d.attname AND bottom.typtype <> 'd'
     UNION ALL
    SELECT t.oid, 'bounds of the partition', format('NOT (%s)', pg_get_partition_constraintdef(t.oid))
      FROM tables t
     WHERE t.relispartition AND pg_get_partition_constraintdef(t.oid) IS NOT NULL
),
broken AS MATERIALIZED (
    SELECT t.oid, t.name
      FROM tables t
      JOIN (SELECT oid, string_agg(condition, ' OR ') AS condition FROM conditions GROUP BY oid) any_of USING (oid)
     CROSS JOIN LATERAL query_to_xml(
           format('SELECT count(*) AS n FROM (SELECT FROM ONLY %s WHERE %s LIMIT 1) AS found', t.name, any_of.condition),
           false, true, ''
     ) AS answer
     WHERE (xpath('/row/n/text()', answer))[1]::text <> '0'
)
SELECT b.name AS "table", c.name AS "constraint", (xpath('/row/n/text()', answer))[1]::text::bigint AS rows
  FROM broken b
  JOIN conditions c USING (oid)
 CROSS JOIN LATERAL query_to_xml(
       format('SELECT count(*) AS n FROM ONLY %s WHERE %s', b.name, c.condition), false, true, ''
 ) AS answer
 WHERE (xpath('/row/n/text()', answer))[1]::text <> '0'
 ORDER BY 1, 2
