-- The record can be added to and read, by nobody changed (SPEC section 4, INV-47-05).
-- A migration ran this file: change it by a new one in include/sql/0002/.

CREATE FUNCTION pv_backup.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
AS $function$
BEGIN
    RAISE EXCEPTION '% on %.% refused for role %: the table is append-only (INV-47-05)',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME, current_user
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Correct a wrong entry by adding one to pv_backup.backup_audit_events.';
END
$function$;
REVOKE ALL ON FUNCTION pv_backup.refuse_change() FROM PUBLIC;

DO $append_only$
DECLARE
    guarded text;
BEGIN
    FOREACH guarded IN ARRAY ARRAY['backup_journal_events', 'backup_audit_events', 'restoration_evidence'] LOOP
        EXECUTE format('ALTER TABLE pv_backup.%I ENABLE ROW LEVEL SECURITY', guarded);
        EXECUTE format('ALTER TABLE pv_backup.%I FORCE ROW LEVEL SECURITY', guarded);
        EXECUTE format(
            'CREATE POLICY service_adds ON pv_backup.%I FOR INSERT TO pv_backup_service WITH CHECK (true)', guarded
        );
        EXECUTE format(
            'CREATE POLICY both_read ON pv_backup.%I FOR SELECT TO pv_backup_service, pv_backup_owner USING (true)',
            guarded
        );
        -- FOR EACH STATEMENT: under FORCE ROW LEVEL SECURITY without an UPDATE policy the owner's UPDATE matches no
        -- row, so a row trigger would never fire and the attempt would pass in silence.
        EXECUTE format(
            'CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON pv_backup.%I'
            ' FOR EACH STATEMENT EXECUTE FUNCTION pv_backup.refuse_change()', guarded
        );
        -- ALWAYS: session_replication_role = replica must not switch it off.
        EXECUTE format('ALTER TABLE pv_backup.%I ENABLE ALWAYS TRIGGER append_only', guarded);
    END LOOP;
END
$append_only$;
