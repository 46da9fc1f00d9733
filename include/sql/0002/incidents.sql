-- An incident is born open, then closed once with an action plan that says something; nothing else ever happens to it
-- (SPEC F4.5). When it was opened and closed says this database's clock, whatever the statement says.
-- A migration ran this file: change it by a new one in include/sql/0003/.

-- What a reader sees of a text: no blanks, nothing that prints nothing (zero-width and format characters, controls, private
-- use), no letter that is drawn as nothing. By code points, for \s and [:space:] differ with the database's collation.
-- The same as visible() in services/incidents.py, for every code point that both know.
CREATE FUNCTION pv_backup.visible(said text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN regexp_replace(
    said,
    '[\u0001-\u0020\u007F-\u00A0\u00AD\u034F\u0600-\u0605\u061C\u06DD\u070F\u0890\u0891\u08E2\u115F\u1160\u1680\u17B4\u17B5'
    '\u180B-\u180F\u2000-\u200F\u2028-\u202F\u205F-\u206F\u2800\u3000\u3164\uE000-\uF8FF\uFDD0-\uFDEF\uFE00-\uFE0F\uFEFF\uFFA0'
    '\uFFF0-\uFFFB\uFFFE\uFFFF\U000110BD\U000110CD\U00013430-\U0001343F\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A'
    '\U000E0000-\U0010FFFF]',
    '', 'g'
);
REVOKE ALL ON FUNCTION pv_backup.visible(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pv_backup.visible(text) TO pv_backup_service;

CREATE OR REPLACE FUNCTION pv_backup.guard_incident() RETURNS trigger
    LANGUAGE plpgsql
AS $function$
DECLARE
    -- The same number as PLAN_MIN in services/incidents.py.
    plan_min CONSTANT int := 20;
    seen text;
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF NEW.closed_at IS NOT NULL OR NEW.action_plan IS NOT NULL OR NEW.closed_by IS NOT NULL THEN
            RAISE EXCEPTION 'incident % can''t be opened and closed in one: nobody would have seen it', NEW.incident_id
                USING ERRCODE = 'check_violation', HINT = 'Leave action_plan, closed_by and closed_at to its closing.';
        END IF;
        NEW.opened_at := clock_timestamp();
        RETURN NEW;
    END IF;
    IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION '% on pv_backup.compliance_incidents refused for role %: incidents stay on record',
            TG_OP, current_user
            USING ERRCODE = 'insufficient_privilege', HINT = 'Close the incident with an action plan instead.';
    END IF;
    IF OLD.closed_at IS NOT NULL THEN
        RAISE EXCEPTION 'incident % was closed at % by %: a closed incident is never changed',
            OLD.incident_id, OLD.closed_at, OLD.closed_by
            USING ERRCODE = 'insufficient_privilege', HINT = 'Open a new incident.';
    END IF;
    IF (NEW.id, NEW.incident_id, NEW.drill_id, NEW.code, NEW.failed_check, NEW.reason, NEW.next_step, NEW.opened_at)
        IS DISTINCT FROM
        (OLD.id, OLD.incident_id, OLD.drill_id, OLD.code, OLD.failed_check, OLD.reason, OLD.next_step, OLD.opened_at)
    THEN
        RAISE EXCEPTION 'incident %: what was recorded at its opening is never changed', OLD.incident_id
            USING ERRCODE = 'insufficient_privilege', HINT = 'Set action_plan, closed_by and closed_at only.';
    END IF;
    seen := coalesce(pv_backup.visible(NEW.action_plan), '');
    IF NEW.closed_at IS NULL OR seen = '' OR coalesce(pv_backup.visible(NEW.closed_by), '') = '' THEN
        RAISE EXCEPTION 'incident % can''t be closed without an action plan and the name of who closes it',
            OLD.incident_id
            USING ERRCODE = 'check_violation', HINT = 'Set action_plan, closed_by and closed_at in one UPDATE.';
    END IF;
    IF length(seen) < plan_min
        OR (SELECT count(DISTINCT letter) FROM regexp_split_to_table(seen, '') AS letter) < plan_min / 4
    THEN
        RAISE EXCEPTION 'incident % can''t be closed with the action plan "%": it says nothing',
            OLD.incident_id, NEW.action_plan
            USING ERRCODE = 'check_violation',
                  HINT = format('Say in at least %s characters what will be done, by whom and until when.', plan_min);
    END IF;
    NEW.closed_at := clock_timestamp();
    RETURN NEW;
END
$function$;

CREATE TRIGGER born_open BEFORE INSERT ON pv_backup.compliance_incidents
    FOR EACH ROW EXECUTE FUNCTION pv_backup.guard_incident();
-- ALWAYS: session_replication_role = replica must not switch it off.
ALTER TABLE pv_backup.compliance_incidents ENABLE ALWAYS TRIGGER born_open;

-- A closing without its event in the audit did not come by the service: whoever wrote the UPDATE, the event is written
-- here, once. Deferred: the service adds its own in the same transaction, before or after the row.
CREATE FUNCTION pv_backup.audit_closing() RETURNS trigger
    LANGUAGE plpgsql
AS $function$
DECLARE
    said CONSTANT jsonb := jsonb_build_object(
        'incident_id', NEW.incident_id, 'action_plan', NEW.action_plan, 'closed_by', NEW.closed_by
    );
BEGIN
    IF NOT EXISTS (
        SELECT FROM pv_backup.backup_audit_events WHERE event_type = 'incident_closed' AND details @> said
    ) THEN
        INSERT INTO pv_backup.backup_audit_events (event_type, details)
        VALUES ('incident_closed', said || jsonb_build_object('by_sql_as', session_user));
    END IF;
    RETURN NULL;
END
$function$;
REVOKE ALL ON FUNCTION pv_backup.audit_closing() FROM PUBLIC;

CREATE CONSTRAINT TRIGGER audit_closing AFTER UPDATE ON pv_backup.compliance_incidents
    DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION pv_backup.audit_closing();
ALTER TABLE pv_backup.compliance_incidents ENABLE ALWAYS TRIGGER audit_closing;

-- The owner, too, can close by SQL, and may add this one event and no other.
ALTER POLICY service_adds ON pv_backup.backup_audit_events TO pv_backup_service, pv_backup_owner
    WITH CHECK (event_type = 'incident_closed' OR pg_has_role('pv_backup_service', 'USAGE'));
