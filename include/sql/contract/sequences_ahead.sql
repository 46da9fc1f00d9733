-- No sequence will give a value that its column already has: of each sequence that a column owns, has as its identity or
-- takes its default from, the next value (by is_called and the sign of the increment) is past all that the column holds.
-- Only values that the sequence can still come to count, by its bounds and its increment: rows numbered by hand outside
-- of them disturb nobody. Not judged: sequences that cycle, defaults that compute with the value, columns of other types.
-- Next: compare with the sequence on the source. There too: rows came in with numbers of their own; run SELECT
-- setval(sequence, largest) there before an INSERT fails. Only here: call this backup damaged, drill an older one.
WITH
drawn AS (
    -- Identity ('i') and owned ('a'); where the column has a default, that says how it draws.
    SELECT d.objid AS sequence_oid, d.refobjid AS table_oid, d.refobjsubid AS column_number
      FROM pg_catalog.pg_depend d
     WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0
       AND d.deptype IN ('i', 'a')
       AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_attrdef f WHERE f.adrelid = d.refobjid AND f.adnum = d.refobjsubid
       )
     UNION
    SELECT d.refobjid, f.adrelid, f.adnum
      FROM pg_catalog.pg_attrdef f
      JOIN pg_catalog.pg_depend d
        ON d.classid = 'pg_attrdef'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_class'::regclass
     WHERE pg_get_expr(f.adbin, f.adrelid) ~ '^\(?nextval\(''([^'']|'''')*''::regclass\)\)?(::[a-z ]+)?$'
),
-- A partitioned table holds no rows; its partitions do, and inserts through it use its own default.
held AS (
    SELECT d.sequence_oid, d.table_oid, a.attname, coalesce(leaf.oid, d.table_oid) AS leaf_oid
      FROM drawn d
      JOIN pg_catalog.pg_class c ON c.oid = d.table_oid AND c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
      JOIN pg_catalog.pg_attribute a ON a.attrelid = d.table_oid AND a.attnum = d.column_number
      LEFT JOIN LATERAL (
           SELECT tree.relid AS oid FROM pg_partition_tree(d.table_oid) AS tree
      ) AS leaf ON c.relkind = 'p'
),
pairs AS MATERIALIZED (
    SELECT s.seqrelid, s.seqincrement, s.seqmin, s.seqmax, h.attname,
           format('%I.%I', sn.nspname, sc.relname) AS sequence,
           format('%I.%I', tn.nspname, tc.relname) AS "table"
      FROM held h
      JOIN pg_catalog.pg_sequence s ON s.seqrelid = h.sequence_oid AND NOT s.seqcycle
      JOIN pg_catalog.pg_class sc ON sc.oid = s.seqrelid AND sc.relpersistence <> 't'
      JOIN pg_catalog.pg_namespace sn ON sn.oid = sc.relnamespace
      JOIN pg_catalog.pg_class tc ON tc.oid = h.leaf_oid AND tc.relkind = 'r'
      JOIN pg_catalog.pg_namespace tn ON tn.oid = tc.relnamespace
      JOIN pg_catalog.pg_attribute a ON a.attrelid = h.leaf_oid AND a.attname = h.attname AND NOT a.attisdropped
      JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
     WHERE y.typcategory = 'N' AND format_type(coalesce(nullif(y.typbasetype, 0), y.oid), -1)
           IN ('smallint', 'integer', 'bigint', 'numeric')
),
coming AS MATERIALIZED (
    SELECT p.*,
           (xpath('/row/n/text()', answer))[1]::text::numeric AS next
      FROM pairs p
     CROSS JOIN LATERAL query_to_xml(
           format(
               'SELECT last_value::numeric + CASE WHEN is_called THEN %s ELSE 0 END AS n FROM %s',
               p.seqincrement, p.sequence
           ), false, true, ''
     ) AS answer
)
SELECT DISTINCT c.sequence, c.next AS next_value, c."table", c.attname AS "column",
       (xpath('/row/held/text()', answer))[1]::text AS holds_up_to
  FROM coming c
 CROSS JOIN LATERAL query_to_xml(
       format(
           'SELECT %1$s(%2$I)::text AS held FROM ONLY %3$s'
           ' WHERE %2$I::numeric BETWEEN %4$s AND %5$s AND (%2$I::numeric - %6$s) %% %7$s = 0',
           CASE WHEN c.seqincrement > 0 THEN 'max' ELSE 'min' END, c.attname, c."table",
           CASE WHEN c.seqincrement > 0 THEN c.next ELSE c.seqmin END,
           CASE WHEN c.seqincrement > 0 THEN c.seqmax ELSE c.next END,
           c.next, abs(c.seqincrement::numeric)
       ), false, true, ''
 ) AS answer
 WHERE (xpath('/row/held/text()', answer))[1] IS NOT NULL
 ORDER BY 1, 3, 4
