"""docs/deploy.md, "Airflow on Kubernetes": parts 8 and 10 are typed as on a host, and reach the scheduler's pod."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Final

import pytest

from tests.infrastructure.deploy_page import FIRST_BACKUP, part
from tests.infrastructure.helm.worker_pods import HELM
from tests.support.pages import paste

pytestmark = pytest.mark.case("TC-INF-04")

HEAD: Final = (HELM / "values.yaml").read_text().split("\n\n", 1)[0]
# As the chart names the scheduler's Deployment, which it is with KubernetesExecutor, and its container.
INTO_THE_POD: Final = "exec --namespace {namespace} deploy/{release}-scheduler --container scheduler -- airflow"


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `kubectl` says what it was given."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/bash\nprintf '%q ' \"$@\"; echo\n")
    kubectl.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


def test_a_command_of_the_page_is_run_where_the_chart_has_airflow(shell: dict[str, str]) -> None:
    (function,) = re.findall(r"^    (as_airflow\(\) .*)$", part("Airflow on Kubernetes"), re.MULTILINE)
    typed = re.findall(r"^    (as_airflow dags trigger .*)$", part(FIRST_BACKUP), re.MULTILINE)
    typed += re.findall(r"`(as_airflow db clean [^`]+)`", part("10. In the calendar"))
    release, namespace = re.search(r"helm upgrade --install (\S+) .*? --namespace (\S+) ", HEAD).groups()  # type: ignore[union-attr]
    into = shlex.split(INTO_THE_POD.format(release=release, namespace=namespace))

    printed = paste("\n".join([function, *typed]), shell).splitlines()

    assert len(printed) == len(typed) == 3
    for line, command in zip(printed, typed, strict=True):
        given = shlex.split(line)
        assert given[: len(into)] == into
        meant = [word for word in shlex.split(command) if "$" not in word][1:]
        assert [word for word in given[len(into) :] if word in meant] == meant
