"""Codes are stable: each is documented, and the document names none that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_code_is_documented() -> None:
    names = (
        "plan/checks.py", "plan/check_stack.py", "plan/place_checks.py", "plan/growth_checks.py", "plan/togpt.py",
        "plan/firmware.py", "plan/windows.py", "plan/check_vms.py",
        "engine/preflight.py", "engine/encrypted.py", "plan/vm_build.py", "engine/vm_plan.py",
    )  # fmt: skip
    sources = [ROOT / "recovery" / name for name in names]
    text = "".join(source.read_text() for source in sources)
    used = set(re.findall(r'code="([a-z0-9-]+)"', text)) | set(re.findall(r'\("(pack-[a-z]+)", "', text))
    used |= set(re.findall(r'"(vm-disk-[a-z-]+)"', (ROOT / "recovery/engine/vm_plan.py").read_text()))
    documented = set(re.findall(r"^\| `([a-z0-9-]+)` \|", (ROOT / "docs/checks.md").read_text(), re.MULTILINE))
    assert len(used) > 20
    assert used == documented
