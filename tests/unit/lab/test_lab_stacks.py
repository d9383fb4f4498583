"""The stacks as data: what a runner may rely on, and that their scripts are bash."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.e2e.stacks import layouts
from tests.e2e.stacks.layouts import CASES, LAYOUTS, Case, Layout, source_script


def test_cases_name_disks_that_are_there() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    for case in CASES:
        layout = layouts.layout(case.layout)
        assert case.disks
        assert set(case.disks) <= set(range(1, len(layout.disks) + 1))
        # QEMU cuts a virtio disk's serial number off behind 20 characters.
        assert len(f"NEW-{case.name}-{case.disks[-1]}") <= 20
    assert {case.layout for case in CASES} == {layout.name for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_the_script_of_a_source_is_bash_and_leaves_nothing_open(layout: Layout) -> None:
    script = source_script(layout, tuple(f"/dev/sd{chr(97 + n)}" for n in range(len(layout.disks))), "/x.tar")
    checked = subprocess.run(["bash", "-n"], input=script.encode(), capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert script.startswith("set -euo pipefail\n")
    assert script.index("umount -R /mnt") > script.index("update-grub")
    # With set -u a variable that no layout sets ends the script in the guest, minutes later.
    used = set(re.findall(r"\$([A-Z][A-Z0-9]*)", script))
    assert used <= set(re.findall(r"(?:^|\s)([A-Z][A-Z0-9]*)=", script)) | {"D1", "D2"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_checks_are_expressions(case: Case) -> None:
    for check in (*layouts.layout(case.layout).checks, *case.checks):
        assert re.compile(check.shows, re.MULTILINE)
        assert not re.search(check.shows, "", re.MULTILINE), "a check that nothing can fail"
