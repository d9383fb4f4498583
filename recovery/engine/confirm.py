"""May this plan be run? It is allowed, and the operator typed what names each disk that will be overwritten. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from recovery.errors import PlanRefusedError, UnsafeTargetError
from recovery.plan.model import RestorePlan
from recovery.plan.vm import VM_NAME, VmPlan


def check_allowed(plan: RestorePlan | VmPlan) -> None:
    """Raises PlanRefusedError with every reason."""
    reasons = [f"{p.what} {p.why}".strip() for p in plan.problems if p.severity == "error"]
    if reasons:
        raise PlanRefusedError(
            f"The plan is refused: {' '.join(reasons)} Nothing was written.",
            hint=" ".join(p.todo for p in plan.problems if p.severity == "error"),
        )


def check_vm_confirmation(plan: VmPlan, confirmations: Mapping[str, str]) -> None:
    """The VM's name was typed where files are overwritten. Raises UnsafeTargetError."""
    typed = confirmations.get(VM_NAME, "").strip()
    if plan.overwritten and not hmac.compare_digest(typed.encode(), plan.confirmation.encode()):
        raise UnsafeTargetError(
            f"{', '.join(plan.overwritten)} would be overwritten, and that was not confirmed. Nothing was written.",
            hint=f"Type the VM's name, {plan.confirmation}, exactly as it is shown.",
        )


def check_confirmations(plan: RestorePlan, confirmations: Mapping[str, str]) -> None:
    """Every target's serial number (or size in bytes) was typed. Raises UnsafeTargetError."""
    for assignment in plan.assignments:
        target = assignment.target
        typed = confirmations.get(target.id, "").strip()
        if not hmac.compare_digest(typed.encode(), target.confirmation.encode()):
            what = "serial number" if target.serial else "size in bytes"
            raise UnsafeTargetError(
                f"{target.path} was not confirmed: what was typed is not its {what}. Nothing was written.",
                hint=f"Type the {what} of the disk that may be overwritten exactly as it is shown.",
            )
