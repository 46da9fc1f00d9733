-- An incident is born open, then closed once with an action plan that says something; nothing else ever happens to it
-- (SPEC F4.5). When it was opened and closed says this database's clock, whatever the statement says.
-- A migration ran this file: change it by a new one in include/sql/0003/.

CREATE OR REPLACE FUNCTION pv_backup.guard_incident() RETURNS trigger
    LANGUAGE plpgsql
AS $function$
DECLARE
    -- The same number as PLAN_MIN in services/incidents.py.
    plan_min CONSTANT int := 20;
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
    IF NEW.closed_at IS NULL OR coalesce(NEW.action_plan, '') !~ '\S' OR coalesce(NEW.closed_by, '') !~ '\S' THEN
        RAISE EXCEPTION 'incident % can''t be closed without an action plan and the name of who closes it',
            OLD.incident_id
            USING ERRCODE = 'check_violation', HINT = 'Set action_plan, closed_by and closed_at in one UPDATE.';
    END IF;
    IF length(regexp_replace(NEW.action_plan, '\s', '', 'g')) < plan_min THEN
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
