"""deploy/helm/airflow_local_settings.py on pods as KubernetesExecutor makes them, for every task of every DAG."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pv_backup.operators.drill import RestoreClusterOperator, RestoreDumpOperator
from pv_backup.operators.stream_export import StreamBasebackupOperator
from tests.infrastructure.compose.dockerfile import stages
from tests.infrastructure.helm.worker_pods import HELM, TASKS, pod_of, settings

pytestmark = pytest.mark.case("TC-INF-04")

every_task = pytest.mark.parametrize("name", sorted(TASKS))


def mounts(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Where the task finds which volume."""
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in pod["spec"]["containers"][0]["volumeMounts"]}


@every_task
def test_whoever_serves_the_queue_of_the_wal_gets_the_receivers_volume(name: str) -> None:
    pod = pod_of(TASKS[name])
    ships = TASKS[name].queue == "pv_backup_wal"
    assert (settings().WAL_MOUNT in mounts(pod)) == ships
    assert ("affinity" in pod["spec"]) == ships


@every_task
def test_whoever_stages_in_clear_gets_a_volume_that_goes_with_the_pod(name: str) -> None:
    stages_in_clear = isinstance(TASKS[name], RestoreClusterOperator | RestoreDumpOperator | StreamBasebackupOperator)
    mounted = mounts(pod_of(TASKS[name]))
    assert (settings().STAGING_MOUNT in mounted) == stages_in_clear
    assert ("/dev/shm" in mounted) == stages_in_clear
    if stages_in_clear:
        assert "ephemeral" in mounted[settings().STAGING_MOUNT]


@every_task
def test_what_the_chart_mounts_stays(name: str) -> None:
    assert "emptyDir" in mounts(pod_of(TASKS[name]))["/tmp"]


def test_the_volume_and_the_node_are_those_of_the_receiver() -> None:
    receiver = yaml.safe_load((HELM / "pg-receivewal.yaml").read_text())
    (claim,) = receiver["spec"]["volumeClaimTemplates"]
    assert f"{claim['metadata']['name']}-{receiver['metadata']['name']}-0" == settings().WAL_CLAIM
    assert receiver["spec"]["template"]["metadata"]["labels"] == settings().RECEIVER_LABELS
    (mount,) = [
        mount
        for mount in receiver["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        if mount["name"] == "wal"
    ]
    assert mount["mountPath"] == settings().WAL_MOUNT

    (ship,) = [task for task in TASKS.values() if task.queue == "pv_backup_wal"]
    pod = pod_of(ship)
    assert mounts(pod)[settings().WAL_MOUNT]["persistentVolumeClaim"]["claimName"] == settings().WAL_CLAIM
    (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["labelSelector"]["matchLabels"] == settings().RECEIVER_LABELS


def test_staging_is_where_the_image_says() -> None:
    assert stages()["airflow"].environment["PV_BACKUP_STAGING_DIRECTORY"] == settings().STAGING_MOUNT


def test_the_chart_finds_nothing_to_fill_in() -> None:
    """It passes the file through its template engine."""
    assert "{{" not in (HELM / "airflow_local_settings.py").read_text()
