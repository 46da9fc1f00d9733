-- Each collation that an index is sorted by is of the version here that it was of when the index was built. With another
-- version of the C library or of ICU the order of texts changes, and the index misses rows that are there.
-- Next: restore where the libraries are those of the source (the same release of the distribution). If the source itself
-- says so too: REINDEX there what is sorted by it, then ALTER DATABASE or ALTER COLLATION … REFRESH VERSION.
WITH versions AS (
    SELECT 100::oid AS oid, d.datcollversion AS then, pg_database_collation_actual_version(d.oid) AS now
      FROM pg_catalog.pg_database d
     WHERE d.datname = current_database()
     UNION ALL
    SELECT c.oid, c.collversion, pg_collation_actual_version(c.oid) FROM pg_catalog.pg_collation c WHERE c.oid <> 100
)
SELECT c.collname AS collation, v.then AS built_with, v.now AS here,
       count(*) AS indexes, min(i.indexrelid::regclass::text) AS for_example
  FROM versions v
  JOIN pg_catalog.pg_collation c USING (oid)
  JOIN pg_catalog.pg_index i ON v.oid = ANY (i.indcollation)
 WHERE v.then IS DISTINCT FROM v.now AND v.then IS NOT NULL
 GROUP BY 1, 2, 3
 ORDER BY 1
