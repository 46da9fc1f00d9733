"""deploy/helm/airflow_local_settings.py on pods as KubernetesExecutor makes them, for every task of every DAG."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.sdk.bases.operator import BaseOperator
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s

from pv_backup.operators.drill import RestoreClusterOperator, RestoreDumpOperator
from pv_backup.operators.stream_export import StreamBasebackupOperator
from tests.dags.dag_world import dags
from tests.infrastructure.compose.dockerfile import stages
from tests.infrastructure.helm.objects import problems

pytestmark = pytest.mark.case("TC-INF-04")

HELM = Path(__file__).parents[3] / "deploy" / "helm"
TASKS: dict[str, BaseOperator] = {f"{dag.dag_id}.{task.task_id}": task for dag in dags() for task in dag.tasks}
every_task = pytest.mark.parametrize("name", sorted(TASKS))


@cache
def settings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("airflow_local_settings", HELM / "airflow_local_settings.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pod_of(task: BaseOperator) -> dict[str, Any]:
    """The pod of a task as the API server would get it: the executor's own, then the hook."""
    template = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(labels={"component": "worker"}),
        spec=k8s.V1PodSpec(
            containers=[k8s.V1Container(name="base", volume_mounts=[k8s.V1VolumeMount(name="tmp", mount_path="/tmp")])],
            volumes=[k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource())],
        ),
    )
    pod = PodGenerator.construct_pod(
        dag_id=task.dag_id,
        task_id=task.task_id,
        pod_id="pod",
        try_number=1,
        kube_image="pv-backup:3.3.2",
        date=None,
        args=["airflow"],
        pod_override_object=None,
        base_worker_pod=template,
        namespace="airflow",
        scheduler_job_id="1",
        run_id="run",
    )
    settings().pod_mutation_hook(pod)
    made: dict[str, Any] = ApiClient().sanitize_for_serialization(pod)
    assert problems(made, "V1Pod") == []
    return made


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
