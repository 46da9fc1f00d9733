"""Gives a task's pod the volumes that this task needs, and no other task.

With KubernetesExecutor a task's queue says nothing of where it runs. So WAL shipping gets pg_receivewal's volume here,
on pg_receivewal's node, and whatever stages in clear gets a volume that goes with its pod. All others get neither.

The official chart takes this file as ``--set-file airflowLocalSettings=deploy/helm/airflow_local_settings.py``; the
scheduler calls :func:`pod_mutation_hook` before it starts a pod. The chart reads it as a template: no double braces.
"""

from __future__ import annotations

from kubernetes.client import models as k8s

# deploy/helm/pg-receivewal.yaml: the claim of its only replica, and its label.
WAL_CLAIM = "wal-pg-receivewal-0"
RECEIVER_LABELS = {"app.kubernetes.io/name": "pg-receivewal"}
WAL_MOUNT = "/var/lib/wal"
# Room for the whole cluster, twice in a drill: both legs may run on one node, each in a pod of its own.
STAGING_SIZE = "100Gi"
STAGING_MOUNT = "/var/lib/pv-backup/staging"

WAL_TASKS = {("pv_backup_wal_shipping", "ship_wal")}
STAGING_TASKS = {
    ("pv_backup_restoration_drill", "restore_the_dump"),
    ("pv_backup_restoration_drill", "restore_the_cluster"),
    # Only when the cluster has extra tablespaces.
    ("pv_backup_weekly_basebackup", "stream_basebackup"),
}


def pod_mutation_hook(pod: k8s.V1Pod) -> None:
    """Add what the pod's task needs; the executor names the task in annotations."""
    annotations = pod.metadata.annotations or {}
    task = (annotations.get("dag_id"), annotations.get("task_id"))
    if task in WAL_TASKS:
        claim = k8s.V1PersistentVolumeClaimVolumeSource(claim_name=WAL_CLAIM)
        _mount(pod, k8s.V1Volume(name="wal", persistent_volume_claim=claim), WAL_MOUNT)
        _beside_the_receiver(pod)
    if task in STAGING_TASKS:
        _mount(pod, _volume_of_the_pod("staging", STAGING_SIZE), STAGING_MOUNT)
        # The drill's PostgreSQL wants more shared memory than the 64 MB that a container has.
        memory = k8s.V1EmptyDirVolumeSource(medium="Memory", size_limit="256Mi")
        _mount(pod, k8s.V1Volume(name="shared-memory", empty_dir=memory), "/dev/shm")  # noqa: S108 - PostgreSQL's place


def _mount(pod: k8s.V1Pod, volume: k8s.V1Volume, path: str) -> None:
    pod.spec.volumes = [*(pod.spec.volumes or []), volume]
    container = pod.spec.containers[0]
    container.volume_mounts = [*(container.volume_mounts or []), k8s.V1VolumeMount(name=volume.name, mount_path=path)]


def _volume_of_the_pod(name: str, size: str) -> k8s.V1Volume:
    """Made with the pod and deleted with it. values.yaml has a killed pod deleted too: nothing in clear outlives it."""
    claim = k8s.V1PersistentVolumeClaimSpec(
        access_modes=["ReadWriteOnce"], resources=k8s.V1VolumeResourceRequirements(requests={"storage": size})
    )
    template = k8s.V1PersistentVolumeClaimTemplate(spec=claim)
    return k8s.V1Volume(name=name, ephemeral=k8s.V1EphemeralVolumeSource(volume_claim_template=template))


def _beside_the_receiver(pod: k8s.V1Pod) -> None:
    """On its node: a volume that one node may mount is then enough."""
    term = k8s.V1PodAffinityTerm(
        label_selector=k8s.V1LabelSelector(match_labels=RECEIVER_LABELS), topology_key="kubernetes.io/hostname"
    )
    affinity = pod.spec.affinity or k8s.V1Affinity()
    affinity.pod_affinity = k8s.V1PodAffinity(required_during_scheduling_ignored_during_execution=[term])
    pod.spec.affinity = affinity
