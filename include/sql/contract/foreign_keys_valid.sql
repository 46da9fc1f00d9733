-- Each row that has a foreign key has the row that it refers to, by the equality that the foreign key itself uses.
-- A foreign key that is NOT VALID is not judged: its owner said that old rows may break it.
-- Next: look for such rows on the source. There too: mend them there (triggers were off when somebody loaded or deleted
-- rows; pg_restore of a dump fails on them as well). Only here: call this backup damaged, drill an older one.
WITH
foreign_keys AS MATERIALIZED (
    -- Those of partitions belong to the one of the partitioned table.
    SELECT k.oid, k.conname, k.confmatchtype, k.conkey, k.confkey, k.conpfeqop, k.conrelid, k.confrelid,
           format('%I.%I', n.nspname, c.relname) AS referring,
           format('%I.%I', fn.nspname, f.relname) AS referred,
           CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END AS only_referring,
           CASE f.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END AS only_referred
      FROM pg_catalog.pg_constraint k
      JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
      JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_catalog.pg_class f ON f.oid = k.confrelid
      JOIN pg_catalog.pg_namespace fn ON fn.oid = f.relnamespace
     WHERE k.contype = 'f' AND k.convalidated AND k.conparentid = 0 AND c.relpersistence <> 't'
),
-- As PostgreSQL builds its own query when a foreign key is added (RI_Initial_Check in ri_triggers.c).
conditions AS (
    SELECT k.oid,
           string_agg(
               format(
                   '(pk.%I%s)%s OPERATOR(%I.%s) (fk.%I%s)',
                   pa.attname,
                   CASE WHEN l.typtype <> 'p' AND l.oid <> pa.atttypid THEN '::' || format_type(l.oid, -1) END,
                   CASE WHEN pa.attcollation NOT IN (0, fa.attcollation) THEN format(' COLLATE %I.%I', cn.nspname, co.collname) END,
                   opn.nspname, o.oprname,
                   fa.attname,
                   CASE WHEN r.typtype <> 'p' AND r.oid <> fa.atttypid THEN '::' || format_type(r.oid, -1) END
               ), ' AND '
           ) AS equal,
           string_agg(
               format('fk.%I IS DISTINCT FROM NULL', fa.attname),
               CASE k.confmatchtype WHEN 'f' THEN ' OR ' ELSE ' AND ' END
           ) AS given
      FROM foreign_keys k
     CROSS JOIN LATERAL unnest(k.conkey, k.confkey, k.conpfeqop) AS pair (referring, referred, operator)
      JOIN pg_catalog.pg_attribute fa ON fa.attrelid = k.conrelid AND fa.attnum = pair.referring
      JOIN pg_catalog.pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = pair.referred
      JOIN pg_catalog.pg_operator o ON o.oid = pair.operator
      JOIN pg_catalog.pg_namespace opn ON opn.oid = o.oprnamespace
      JOIN pg_catalog.pg_type l ON l.oid = o.oprleft
      JOIN pg_catalog.pg_type r ON r.oid = o.oprright
      LEFT JOIN pg_catalog.pg_collation co ON co.oid = pa.attcollation
      LEFT JOIN pg_catalog.pg_namespace cn ON cn.oid = co.collnamespace
     GROUP BY k.oid, k.confmatchtype
)
SELECT k.referring AS "table", k.conname AS foreign_key, k.referred AS refers_to,
       (xpath('/row/n/text()', answer))[1]::text::bigint AS rows
  FROM foreign_keys k
  JOIN conditions c USING (oid)
 CROSS JOIN LATERAL query_to_xml(
       format(
           'SELECT count(*) AS n FROM %s%s AS fk WHERE (%s) AND NOT EXISTS (SELECT FROM %s%s AS pk WHERE %s)',
           k.only_referring, k.referring, c.given, k.only_referred, k.referred, c.equal
       ), false, true, ''
 ) AS answer
 WHERE (xpath('/row/n/text()', answer))[1]::text <> '0'
 ORDER BY 1, 2
