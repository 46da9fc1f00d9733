"""Terraform itself, for what it does without a provider: it formats, renders and checks variables."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

needs_terraform = pytest.mark.skipif(
    shutil.which("terraform") is None,
    reason="no terraform in PATH, so its formatting, its rendering of the policies and its refusals of bad variables "
    "were NOT checked: install Terraform 1.11 or newer (https://developer.hashicorp.com/terraform/install)",
)


def terraform(*arguments: str, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run one command in a folder, whatever this machine's own settings of it are."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return subprocess.run(
        ["terraform", *arguments],
        cwd=folder,
        env=environment | {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
