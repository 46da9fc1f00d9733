-- No two rows have the same primary or unique key. The rows themselves are compared, since a damaged index is just what
-- lets the second one in.
-- An index that is not valid is for indexes_valid; one whose operator class has an order of its own, for pg_amcheck.
-- Next: look for the same rows on the source. There too: its index is damaged (a collation that changed, a crash with
-- fsync off): remove the surplus rows there and REINDEX. Only here: call this backup damaged, drill an older one.
WITH
indexes AS MATERIALIZED (
    SELECT i.indexrelid AS oid, i.indnkeyatts, i.indcollation, i.indnullsnotdistinct, x.relname AS index,
           format('%I.%I', n.nspname, c.relname) AS "table",
           'WHERE ' || pg_get_expr(i.indpred, i.indrelid) AS predicate
      FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
     WHERE i.indisunique AND i.indisvalid AND i.indisready AND i.indislive
       AND c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
       AND NOT EXISTS (
           SELECT FROM unnest(i.indclass::oid[]) AS own (oid) JOIN pg_catalog.pg_opclass o USING (oid)
            WHERE NOT o.opcdefault AND o.opcname !~ '_pattern_ops$'
       )
),
keys AS (
    SELECT i.oid,
           string_agg(
               format(
                   '(%s)%s AS k%s', pg_get_indexdef(i.oid, place, false),
                   CASE WHEN co.oid IS NOT NULL THEN format(' COLLATE %I.%I', n.nspname, co.collname) END, place
               ), ', ' ORDER BY place
           ) AS selected,
           string_agg(format('k%s', place), ', ') AS grouped,
           string_agg(format('k%s IS DISTINCT FROM NULL', place), ' AND ') AS given
      FROM indexes i
     CROSS JOIN LATERAL generate_series(1, i.indnkeyatts) AS place
      LEFT JOIN pg_catalog.pg_collation co ON co.oid = i.indcollation[place - 1]
      LEFT JOIN pg_catalog.pg_namespace n ON n.oid = co.collnamespace
     GROUP BY i.oid
)
SELECT i."table", i.index, (xpath('/row/n/text()', answer))[1]::text::bigint AS keys_of_several_rows
  FROM indexes i
  JOIN keys k USING (oid)
 CROSS JOIN LATERAL query_to_xml(
       format(
           'SELECT count(*) AS n FROM (SELECT FROM (SELECT %s FROM ONLY %s %s) AS keys WHERE %s GROUP BY %s'
           ' HAVING count(*) > 1) AS twice',
           k.selected, i."table", i.predicate,
           CASE WHEN i.indnullsnotdistinct THEN 'true' ELSE k.given END, k.grouped
       ), false, true, ''
 ) AS answer
 WHERE (xpath('/row/n/text()', answer))[1]::text <> '0'
 ORDER BY 1, 2
