-- What the service role may do, and nobody else anything (SPEC section 4).
-- A migration ran this file: change it by a new one in include/sql/0002/.

REVOKE ALL ON SCHEMA pv_backup FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA pv_backup FROM PUBLIC;

GRANT USAGE ON SCHEMA pv_backup TO pv_backup_service;
GRANT SELECT, INSERT, UPDATE ON pv_backup.backup_executions TO pv_backup_service;
GRANT SELECT, INSERT ON pv_backup.backup_journal_events, pv_backup.backup_audit_events, pv_backup.restoration_evidence
    TO pv_backup_service;
GRANT SELECT, INSERT, UPDATE (action_plan, closed_by, closed_at) ON pv_backup.compliance_incidents TO pv_backup_service;
