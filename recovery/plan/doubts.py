"""What keeps an unattended restore from starting, beyond what forbids any restore. Pure.

A person who reads a warning may know better; where nobody reads it, a warning is a doubt and a doubt is a refusal,
unless the answers name its code in ``accept``.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from recovery.errors import NotFoundError
from recovery.format.point import PointSummary
from recovery.plan.answers import Answers, parse_point
from recovery.plan.model import Problem, RestorePlan
from recovery.plan.rules import parse_rule


def choose_point(points: Sequence[PointSummary], wish: str) -> str:
    """What to ask the engine for: an id, or the beginning of one. ``points`` are newest last. Raises NotFoundError."""
    meant = parse_point(wish)
    if isinstance(meant, float):
        before = [point for point in points if point.created <= meant]
        if not before:
            raise NotFoundError(
                f"The host has no point at or before {wish}.",
                hint=f"Its oldest is of {_when(points[0].created)}." if points else "It has none at all.",
            )
        return max(before, key=lambda point: point.created).id
    if meant == "latest" and points:
        return max(points, key=lambda point: point.created).id
    return meant


def doubts(answers: Answers, plan: RestorePlan) -> list[Problem]:
    """Every problem of the plan that stops an unattended restore; empty when it may run."""
    return [
        problem for problem in plan.problems if problem.severity != "info" and not _accepted(problem, answers, plan)
    ]


def _accepted(problem: Problem, answers: Answers, plan: RestorePlan) -> bool:
    if problem.severity == "error":
        return False
    if problem.code in answers.accept:
        return True
    if problem.code == "target-has-data":
        return answers.overwrite or all(_named(answers, plan, name) for name in plan.choices.targets)
    if problem.code == "disk-not-restored":
        return bool(answers.skip)  # every disk of the point has a rule or is named there (``rules.assign``)
    return problem.code in ("pack-missing", "pack-truncated", "map-damaged") and answers.skip_damaged


def _named(answers: Answers, plan: RestorePlan, name: str) -> bool:
    """The target holds nothing, or the rule says which disk it is, not only what kind of disk."""
    rule = answers.disks if isinstance(answers.disks, str) else answers.disks.get(name, "")
    assigned = next((a for a in plan.assignments if a.source.name == name), None)
    return assigned is None or not assigned.losses or parse_rule(rule).names_the_disk


def _when(created: float) -> str:
    return datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%d %H:%M UTC")
