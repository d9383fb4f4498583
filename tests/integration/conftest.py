"""What several integration tests need of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tracing() -> None:
    """Kernel events can be read, or the test is skipped."""
    if not Path("/sys/kernel/tracing/instances").is_dir():
        subprocess.run(["mount", "-t", "tracefs", "tracefs", "/sys/kernel/tracing"], check=False)
    if not Path("/sys/kernel/tracing/instances").is_dir() or not Path("/sys/kernel/btf/vmlinux").exists():
        pytest.skip("this kernel has no tracefs or no BTF")
