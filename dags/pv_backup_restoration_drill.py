"""
# Restoration drill (flow F4)

Every 90 days, and by hand: restores for real, to a chosen second, and leaves proof that an auditor accepts, or an
incident. A dump can't be rolled forward with WAL, so there are two ways back, and both must pass.

| task | does |
| --- | --- |
| `choose_the_target` | the form's target or the end of the shipped WAL; puts the drill's beginning on record |
| `restore_the_dump` | newest dump before it: verified, roles, pg_restore, contract, row counts, pg_amcheck |
| `restore_the_cluster` | newest base backup before it: verified, unpacked, recovered, contract, pg_amcheck |
| `record_the_evidence` | one signed document into the database, the bucket, mail and webhook; or an incident |
| `demand_the_proof` | red if the drill failed |
| `see_to_the_incident` | starts `pv_backup_compliance`, which asks for the action plan; skipped: it passed |

Each leg starts, uses and removes a server of its own on the worker that runs it, in `PV_BACKUP_STAGING_DIRECTORY`,
which needs room for the cluster. A guard process removes it when the task is killed. The source is not touched.

**By hand:** target `latest`, or a time with a zone, such as `2026-11-22T03:15:00+01:00`. After an incident was mended,
trigger it again: the incident stays open until its action plan is there, but the proof need not wait.

**Paged?** ERR-47-07 in `demand_the_proof`: the drill failed; the incident carries the code of its first failure:

* ERR-47-04, WAL-CONFLICT: the named artefact is damaged or swapped, or Vault lacks the version of its key. Keep it for
  inspection; bring an older version back from the versioned bucket, or restore Vault's key. Drill again.
* WAL-GAP: the named segment is missing. Look in `pg_wal` of the source; else take a base backup now.
* REFUSED: no backup before the target. Choose a later one; if `latest` has none, see why nothing is published.
* CORRUPTION: pg_amcheck found broken pages. Run pg_amcheck on the source *today*.
* CONTRACT: the named check returned rows, or rows are missing. Run its file of `include/sql/contract/` on the source.
* RESTORE: PostgreSQL or pg_restore refused; its own words follow (an extension that this worker lacks, say).
* STAGING-FULL: no room on the worker; the message says how much is needed.
* TOO-SLOW: the leg took longer than 20 hours, or came too late to be over 5 hours before the run's end.
* ERR-47-02: Vault is sealed. ERR-47-03: S3 is away. ERR-47-08: a leg's process was killed. Mend it, drill again.
* CONFIGURATION: the message names the setting, the connection or the directory.

REFUSED, FAILED_FORMAT in `choose_the_target`: the target is later than the last shipped commit, or no time; no drill
was begun. ERR-47-02, ERR-47-06, CONFIGURATION in `record_the_evidence`: the drill is over, and can't be put on record.
Bring back Vault (which may keep the journal's connection and the settings), the journal or the setting: the task tries
again every 15 minutes for 12 hours, or until the run is ended 46 hours after its start, if that is earlier; the alert
names the time. A drill that left nothing is found by `pv_backup_compliance`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Asset, DeltaTriggerTimetable, chain

from pv_backup.dag_basics import LONG_STEP, Tag, drill_form
from pv_backup.dag_defaults import DEFAULT_ARGS, ON_RUN_FAILURE
from pv_backup.operators.drill import ChooseTargetOperator, RestoreClusterOperator, RestoreDumpOperator
from pv_backup.operators.evidence import DemandProofOperator, RecordEvidenceOperator, SeeToIncidentOperator
from pv_backup.operators.retrying import PATIENT_RETRIES, PatientRetryPolicy
from pv_backup.services.settings import DRILL_PERIOD_DAYS

with DAG(
    dag_id="pv_backup_restoration_drill",
    description="Restores dump and cluster to a chosen second, and leaves signed proof or an incident",
    doc_md=__doc__,
    schedule=DeltaTriggerTimetable(timedelta(days=DRILL_PERIOD_DAYS)),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # Less than what pv_backup_compliance gives a drill before it calls it unproven. The legs end 5 hours before it.
    dagrun_timeout=timedelta(hours=46),
    default_args=DEFAULT_ARGS,
    on_failure_callback=ON_RUN_FAILURE,
    tags=[Tag.PV_BACKUP, Tag.RESTORATION],
    params=drill_form(),
):
    choose_the_target = ChooseTargetOperator(task_id="choose_the_target")
    order = choose_the_target.output

    restore_the_dump = RestoreDumpOperator(task_id="restore_the_dump", order=order, execution_timeout=LONG_STEP)
    restore_the_cluster = RestoreClusterOperator(
        task_id="restore_the_cluster", order=order, execution_timeout=LONG_STEP
    )
    record_the_evidence = RecordEvidenceOperator(
        task_id="record_the_evidence",
        order_from="choose_the_target",
        legs_from=["restore_the_dump", "restore_the_cluster"],
        trigger_rule="all_done",
        retries=PATIENT_RETRIES,
        retry_policy=PatientRetryPolicy(),
    )
    demand_the_proof = DemandProofOperator(
        task_id="demand_the_proof",
        conclusion=record_the_evidence.output,
        outlets=[Asset("pv_backup_restoration_drill")],
    )
    see_to_the_incident = SeeToIncidentOperator(
        task_id="see_to_the_incident",
        conclusion=record_the_evidence.output,
        trigger_dag_id="pv_backup_compliance",
    )

    chain([restore_the_dump, restore_the_cluster], record_the_evidence, [demand_the_proof, see_to_the_incident])
