-- Each table, index, sequence and TOAST table has its file. PostgreSQL itself notices only when somebody reads it.
-- Next: compare with the source: SELECT pg_relation_filepath(…) and look there. There too: its disk lost it; save what
-- can be read. Only here: call this backup damaged, drill an older one.
SELECT format('%I.%I', n.nspname, c.relname) AS relation, c.relkind AS kind, pg_relation_filepath(c.oid) AS file
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relpersistence <> 't'
   AND pg_relation_filepath(c.oid) IS NOT NULL
   AND pg_stat_file(pg_relation_filepath(c.oid), true) IS NULL
 ORDER BY 1
