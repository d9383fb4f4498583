"""What a plan was checked for, step by step, and what came of each check: for people who read the plan. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recovery.plan.model import Problem, RestorePlan, Severity

#: ``unasked``: it needs asking (the repository, this system), which is left out while something else is an error.
State = Literal["passed", "note", "warning", "failed", "unasked"]


@dataclass(frozen=True)
class Check:
    """A check of the step whose id is, or begins with, ``step``. ``codes`` are the problems it can find; ``asks``:
    it needs asking; ``devices``: it is about disks of this machine, not about image files; ``writes`` True: only where
    disks are restored, False: only where they are repaired; ``rare``: about what few hosts have, and told where it has
    something to tell, or (``secret``) where a passphrase was given."""

    step: str
    title: str
    codes: tuple[str, ...]
    asks: bool = False
    devices: bool = False
    writes: bool | None = None
    rare: bool = False
    secret: bool = False


CHECKS: tuple[Check, ...] = (
    Check("open", "every disk has its own target, and each target is there",
          ("nothing-to-restore", "unknown-disk", "target-missing", "same-target-twice")),
    Check("open", "no target is in use, the medium, or holds a repository",
          ("target-is-boot-medium", "target-holds-repository", "target-busy")),
    Check("open", "the targets may be written", ("target-read-only",)),
    Check("open", "this user may write to them", ("no-write-access",), asks=True, devices=True),
    Check("open", "nothing that is needed is lost", ("target-has-data",), writes=True),
    Check("open", "a host is on them", ("nothing-on-disk",), writes=False),
    Check("open", "enough memory", ("memory-low", "memory-scarce")),
    Check("open", "comes back as it was, without adaptation", ("not-adapted",), writes=True, rare=True),
    Check("stream:", "large enough, and sectors that its contents bear",
          ("target-too-small", "target-smaller", "sector-size-differs", "sector-size-converted", "target-larger",
           "grow-to-unknown", "grow-to-refused", "mbr-limit", "journal-laid-out-anew")),
    Check("stream:", "the programs that lay it out anew", ("tool-missing",), asks=True),
    Check("stream:", "all content is in the repository",
          ("map-damaged", "pack-missing", "pack-truncated", "journal-truncated"), asks=True),
    Check("stream:", "room for the image", ("no-room",), asks=True),
    Check("adapt", "everything it starts from is restored", ("disk-not-restored", "adapt-needs-device"), writes=True),
    Check("adapt", "RAID arrays get the disks that they need", ("md-degraded", "md-incomplete"), writes=True),
    Check("adapt", "what is encrypted can be opened",
          ("luks-secret-missing", "luks-not-adapted", "luks-memory", "luks-key-stays"), rare=True, secret=True),
    Check("adapt", "no session of the host sleeps in swap", ("hibernated",), rare=True),
    Check("adapt", "the passphrase opens it", ("luks-secret-wrong",), asks=True, rare=True, secret=True),
    Check("adapt", "the same processor architecture", ("architecture-differs",), devices=True, writes=True),
    Check("adapt", "a boot loader for this machine's firmware",
          ("gpt-converted", "gpt-refused",
           "firmware-differs", "firmware-converted", "firmware-unknown", "secure-boot-on", "secure-boot-off"),
          devices=True),
    Check("adapt", "Windows was shut down, and has drivers for this machine's disks",
          ("windows-hibernated", "windows-unclean", "windows-registry", "windows-driver-missing", "windows-usb",
           "windows-moved", "windows-firmware", "windows-bitlocker", "windows-adapted"),
          devices=True, writes=True, rare=True),
    Check("adapt", "the host's VMs find what they ask for",
          ("vm-virtualization", "vm-processor", "vm-memory", "vm-pinned", "vm-passthrough"),
          devices=True, writes=True, rare=True),
    Check("adapt", "no volume group or filesystem of the same name on other disks",
          ("lvm-name-clash", "duplicate-uuid"), devices=True, writes=True),
)  # fmt: skip

STATES: dict[Severity, State] = {"error": "failed", "warning": "warning", "info": "note"}


def checks_of(plan: RestorePlan, step: str) -> list[tuple[Check, State, tuple[Problem, ...]]]:
    """The checks that belong to a step of the plan, with what they found. Those of all disks stand at the first one,
    those of the whole adaptation at its first step."""
    first = next((planned.id for planned in plan.steps if _kind(planned.id) == _kind(step)), "")
    devices = any(assignment.target.bus != "file" for assignment in plan.assignments)
    files = any(assignment.target.bus == "file" for assignment in plan.assignments)
    found: list[tuple[Check, State, tuple[Problem, ...]]] = []
    for check in CHECKS:
        if _kind(check.step) != _kind(step) or step != first or (check.devices and not devices):
            continue
        if (check.codes == ("no-room",) and not files) or check.writes == (not plan.choices.restore):
            continue
        problems = tuple(problem for problem in plan.problems if problem.code in check.codes)
        if check.rare and not problems and not (check.secret and plan.choices.luks_secret):
            continue
        found.append((check, _state(plan, check, problems), problems))
    return found


def _state(plan: RestorePlan, check: Check, problems: tuple[Problem, ...]) -> State:
    for severity in ("error", "warning", "info"):
        if any(problem.severity == severity for problem in problems):
            return STATES[severity]
    asked = {code for other in CHECKS if other.asks for code in other.codes}
    # Nobody was asked when what can be seen without asking forbids the plan already.
    unasked = check.asks and any(p.severity == "error" and p.code not in asked for p in plan.problems)
    return "unasked" if unasked else "passed"


def _kind(step: str) -> str:
    return step.partition(":")[0].partition(".")[0]
