-- Each extension of the database can be had here, in the version that it has, and each library that a function is
-- written in lies where the function looks for it. Without its library an extension's data is there and unusable.
-- Next: install the package that brings the extension, in that version, where drills run: and write it down for the day
-- on which the cluster must come back for real (`SELECT * FROM pg_extension` on the source names them all).
SELECT 'extension' AS missing, format('%s %s', e.extname, e.extversion) AS what,
       (SELECT string_agg(v.version, ', ') FROM pg_available_extension_versions v WHERE v.name = e.extname) AS here
  FROM pg_catalog.pg_extension e
 WHERE NOT EXISTS (
           SELECT FROM pg_available_extension_versions v WHERE (v.name, v.version) = (e.extname, e.extversion)
       )
 UNION ALL
 SELECT DISTINCT 'library', p.probin, NULL
  FROM pg_catalog.pg_proc p
  JOIN pg_catalog.pg_language l ON l.oid = p.prolang AND l.lanname = 'c'
 WHERE NOT EXISTS (
           -- A name without a directory is looked for in dynamic_library_path (PostgreSQL 15, section 38.10.1).
           SELECT FROM string_to_table(current_setting('dynamic_library_path'), ':') AS folder
            CROSS JOIN pg_config AS here
            CROSS JOIN (VALUES (''), ('.so')) AS ending (text)
            WHERE here.name = 'PKGLIBDIR'
              -- Some fields of a file that is there are NULL, too, hence not IS NOT NULL.
              AND NOT pg_stat_file(
                      replace(CASE WHEN p.probin ~ '/' THEN '' ELSE folder || '/' END || p.probin, '$libdir', here.setting)
                      || ending.text, true
                  ) IS NULL
       )
 ORDER BY 1, 2
