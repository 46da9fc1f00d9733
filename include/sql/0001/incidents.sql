-- An incident is opened, then closed once with an action plan; nothing else ever happens to it (SPEC F4.5).
-- A migration ran this file: change it by a new one in include/sql/0002/.

CREATE FUNCTION pv_backup.guard_incident() RETURNS trigger
    LANGUAGE plpgsql
AS $function$
BEGIN
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
    IF (NEW.id, NEW.incident_id, NEW.drill_id, NEW.reason, NEW.opened_at)
        IS DISTINCT FROM (OLD.id, OLD.incident_id, OLD.drill_id, OLD.reason, OLD.opened_at) THEN
        RAISE EXCEPTION 'incident %: what was recorded at its opening is never changed', OLD.incident_id
            USING ERRCODE = 'insufficient_privilege', HINT = 'Set action_plan, closed_by and closed_at only.';
    END IF;
    IF NEW.closed_at IS NULL OR coalesce(NEW.action_plan, '') !~ '\S' OR coalesce(NEW.closed_by, '') !~ '\S' THEN
        RAISE EXCEPTION 'incident % can''t be closed without an action plan and the name of who closes it',
            OLD.incident_id
            USING ERRCODE = 'check_violation', HINT = 'Set action_plan, closed_by and closed_at in one UPDATE.';
    END IF;
    RETURN NEW;
END
$function$;
REVOKE ALL ON FUNCTION pv_backup.guard_incident() FROM PUBLIC;

CREATE TRIGGER close_once BEFORE UPDATE ON pv_backup.compliance_incidents
    FOR EACH ROW EXECUTE FUNCTION pv_backup.guard_incident();
CREATE TRIGGER stay_on_record BEFORE DELETE OR TRUNCATE ON pv_backup.compliance_incidents
    FOR EACH STATEMENT EXECUTE FUNCTION pv_backup.guard_incident();
ALTER TABLE pv_backup.compliance_incidents ENABLE ALWAYS TRIGGER close_once;
ALTER TABLE pv_backup.compliance_incidents ENABLE ALWAYS TRIGGER stay_on_record;
