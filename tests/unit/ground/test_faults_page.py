"""The page of faults and the suite of faults are the same: no test is missing there, and none is invented."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_fault_test_is_on_the_page_and_every_name_on_it_is_a_test() -> None:
    suite: set[str] = set()
    for file in (*ROOT.glob("tests/integration/test_*.py"), *ROOT.glob("tests/e2e/test_*.py")):
        text = file.read_text()
        if "pytest.mark.faults" in text:
            suite |= set(re.findall(r"^def (test_\w+)", text, re.MULTILINE))
    page = (ROOT / "docs/faults.md").read_text()
    named = {name for name in re.findall(r"`(test_\w+)`", page) if not name.startswith("test_restore_copies")}
    assert suite - named == set(), "not on the page"
    assert named - suite == set(), "no such test"
