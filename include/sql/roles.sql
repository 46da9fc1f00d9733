-- The two roles of the journal database (SPEC section 4), so that the one that writes the record can't rewrite it.
--
-- Run once per journal database, connected to it as a superuser, before the first migration; again changes nothing.
-- Plain SQL without psql commands, so that any client can run it. Passwords are set apart (ALTER ROLE … PASSWORD),
-- by whoever keeps the secrets: none belongs in a file.

DO $roles$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['pv_backup_owner', 'pv_backup_service'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I LOGIN', wanted);
            -- A worker that vanished in mid-transaction must not hold the day's row against the next one.
            EXECUTE format('ALTER ROLE %I SET lock_timeout = ''30s''', wanted);
            EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = ''60s''', wanted);
        EXCEPTION
            -- unique_violation: another session creates it at this very moment.
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
        -- A role that stood before may have more: SUPERUSER or BYPASSRLS would make row-level security decoration.
        IF EXISTS (
            SELECT FROM pg_roles
            WHERE rolname = wanted
              AND (rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole OR rolreplication OR NOT rolcanlogin)
        ) THEN
            EXECUTE format(
                'ALTER ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION', wanted
            );
        END IF;
    END LOOP;
END
$roles$;

DO $rights$
BEGIN
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO pv_backup_owner, pv_backup_service', current_database());
    -- The first migration creates the schema pv_backup.
    EXECUTE format('GRANT CREATE ON DATABASE %I TO pv_backup_owner', current_database());
END
$rights$;
