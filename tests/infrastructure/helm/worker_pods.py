"""Pods of tasks as KubernetesExecutor makes them of the chart's template, with what our hook adds."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.sdk.bases.operator import BaseOperator
from kubernetes.client import ApiClient
from kubernetes.client import models as k8s

from tests.dags.dag_world import dags
from tests.infrastructure.helm.objects import problems

HELM = Path(__file__).parents[3] / "deploy" / "helm"
TASKS: dict[str, BaseOperator] = {f"{dag.dag_id}.{task.task_id}": task for dag in dags() for task in dag.tasks}


@cache
def settings() -> ModuleType:
    """deploy/helm/airflow_local_settings.py."""
    spec = importlib.util.spec_from_file_location("airflow_local_settings", HELM / "airflow_local_settings.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pod_of(task: BaseOperator, *, name: str = "pod", scheduler: str = "1") -> dict[str, Any]:
    """The pod of a task as the API server would get it.

    :param scheduler: the job id of the scheduler that starts it.
    """
    template = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(labels={"component": "worker"}),
        spec=k8s.V1PodSpec(
            restart_policy="Never",
            containers=[k8s.V1Container(name="base", volume_mounts=[k8s.V1VolumeMount(name="tmp", mount_path="/tmp")])],
            volumes=[k8s.V1Volume(name="tmp", empty_dir=k8s.V1EmptyDirVolumeSource())],
        ),
    )
    pod = PodGenerator.construct_pod(
        dag_id=task.dag_id,
        task_id=task.task_id,
        pod_id=name,
        try_number=1,
        kube_image="pv-backup:3.3.2",
        date=None,
        args=["airflow"],
        pod_override_object=None,
        base_worker_pod=template,
        namespace="airflow",
        scheduler_job_id=scheduler,
        run_id="run",
    )
    settings().pod_mutation_hook(pod)
    made: dict[str, Any] = ApiClient().sanitize_for_serialization(pod)
    assert problems(made, "V1Pod") == []
    return made
