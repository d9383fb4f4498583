"""``python -m tests.e2e.stacks FOLDER [CASE...]``: every stack from source to login; the report is FOLDER/report.json.

Minutes a case without KVM. What is there already (sources, the cached medium) is used again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from recovery.units import format_duration
from tests.e2e.lab.accel import best_acceleration
from tests.e2e.lab.medium_shell import medium_files
from tests.e2e.stacks import layouts, prove
from tests.e2e.stacks.prove import Outcome
from tests.e2e.stacks.sources import disk_path, make_sources, root_tar


def run_cases(folder: Path, names: Sequence[str]) -> dict[str, Outcome]:
    """Run these cases, all without a name. Raises LabError, CommandError when nothing can be tried at all."""
    cases = [case for case in layouts.CASES if not names or case.name in names]
    outcomes = {case.name: Outcome(case.name) for case in cases}
    files = medium_files(say)
    accel = best_acceleration(files.kernel)
    wanted = [layouts.layout(name) for name in dict.fromkeys(case.layout for case in cases)]
    missing = [one for one in wanted if not disk_path(folder, one.name, 1).exists()]
    if missing:
        make_sources(missing, folder, root_tar(say), say, files)
    repository = prove.Repository(folder)
    for case in cases:
        prove.capture(case, folder, repository, outcomes[case.name])
    prove.restore_all(cases, folder, repository, outcomes, say, files)
    for case in cases:
        if not outcomes[case.name].failed:
            prove.boot(case, folder, accel, outcomes[case.name], say)
    (folder / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcomes), indent=2))
    return outcomes


def say(text: str) -> None:
    """Progress, one line each."""
    print(text, flush=True)


def main() -> int:
    """Exit code 1 when a check failed."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = run_cases(folder, sys.argv[2:])
    for outcome in outcomes.values():
        times = ", ".join(f"{what} {format_duration(seconds)}" for what, seconds in outcome.seconds.items())
        say(f"{outcome.case}: {len(outcome.held)} checks held, {len(outcome.failed)} failed ({times})")
        for what, detail in outcome.failed.items():
            say(f"  FAILED {what}: {detail}")
    return int(any(outcome.failed for outcome in outcomes.values()))


if __name__ == "__main__":
    raise SystemExit(main())
