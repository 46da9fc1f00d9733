-- No index is left half made: such an index costs every write and helps no query, and one that shall be unique is not.
-- (pg_dump leaves them out without a word, so only a restored cluster shows them.)
-- Next: on the source, see whether the index was being built at the second that was restored (CREATE INDEX CONCURRENTLY,
-- REINDEX CONCURRENTLY); then drill another second. If it is there still: DROP INDEX or REINDEX INDEX it there.
SELECT format('%I.%I', n.nspname, x.relname) AS index, i.indrelid::regclass AS "table",
       i.indisvalid AS is_valid, i.indisready AS is_ready, i.indislive AS is_live
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = x.relnamespace
 WHERE NOT (i.indisvalid AND i.indisready AND i.indislive) AND x.relpersistence <> 't'
 ORDER BY 1
