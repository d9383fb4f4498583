"""Pure: results as the Markdown table of docs/hardware-matrix.md."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping

from recovery.units import format_duration
from tests.e2e.matrix.catalogue import SOURCES
from tests.e2e.matrix.model import Cell
from tests.e2e.matrix.results import PROMISES_BROKEN, Result, Status

_WORDS: dict[Status, str] = {
    "booted": "booted twice", "refused": "refused by the plan", "adapt-failed": "**adaptation failed**",
    "no-boot": "**did not boot**", "broken": "**booted, not whole**", "untested": "untested", "lab-failed": "untested",
}  # fmt: skip
_HEAD = """\
# Hardware matrix

Written by `scripts/matrix --write-docs`; not to be edited by hand. Each row is a system that was captured, restored
onto the disk of another machine, adapted there by `rekindle adapt` on the recovery medium, and then started alone,
twice.

- *booted twice*: a login on the serial console; root, every filesystem of fstab and swap there; the address up on
  the interface or bridge that had it, and the gateway answering; no failed unit that had not failed on the old
  machine; and all of it again after a restart.
- *refused by the plan*: said before the first write, with the reason. Below.
- Bold: the plan promised what did not come true. These are bugs.
- *untested*: this lab cannot do it.
- Windows is in no cell: none can be passed on with the tests, so it is *not booted*. What is changed in it is tried on
  registry hives and NTFS volumes made here (`docs/adaptation.md`, "Windows").

Some cells need a QEMU of 8.0 or later (igb): `scripts/matrix` takes the first one on `PATH`. QEMU's MegaRAID (7.2 and
10.0) now and then answers Linux's driver what it had not asked, which ends the kernel; such a run says nothing of us.
Without KVM all kernels here start with `norandmaps`: QEMU's translator is three times as fast with programs at fixed
addresses.

Sources and axes are data (`tests/e2e/matrix/catalogue.py`). The cells are chosen so that every pair of two values that
can stand together occurs (all-pairs); `--all` is their product. Results are kept by the content of the deciding
code.
"""


def markdown(results: Mapping[str, Result], cells: Mapping[str, Cell], code: str) -> str:
    """The page. ``cells`` are the selected ones; ``code`` the key of the code as it is now."""
    listed = sorted(results.values(), key=lambda result: (result.source, result.cell))
    known = [result for result in listed if result.cell in cells]
    more = [result for result in listed if result.cell not in cells and result.source in SOURCES]
    parts = [_HEAD, _summary(known, more, cells, code), _sources()]
    if known:
        parts.append(_table("Cells", known, code))
    if more:
        parts.append(_table("Cells beside the selected ones", more, code))
    parts += [_reasons(known + more), _times(known + more), _missing(results, cells)]
    return "\n".join(part for part in parts if part)


def counts(results: Iterable[Result]) -> Counter[Status]:
    """How many of each status."""
    return Counter(result.status for result in results)


def _summary(known: list[Result], more: list[Result], cells: Mapping[str, Cell], code: str) -> str:
    if not known and not more:
        return f"## Where it stands\n\n{len(cells)} cells are selected. None of them has been run to its end yet.\n"
    count = counts([*known, *more])
    broken = sum(count[status] for status in PROMISES_BROKEN)
    now = sum(result.code == code for result in (*known, *more))
    return (
        "## Where it stands\n\n"
        f"{len(cells)} cells are selected; {len(known)} of them have a result, and {len(more)} others.\n\n"
        f"| booted twice | refused by the plan | planned fine but did not boot | untested |\n|---|---|---|---|\n"
        f"| {count['booted']} | {count['refused']} | {broken} | {count['untested'] + count['lab-failed']} |\n\n"
        f"{now} of the {len(known) + len(more)} results were made with the code as it is now; the others with earlier "
        "code (marked ᵉ).\n"
    )


def _sources() -> str:
    rows = [f"| `{source.name}` | {source.title} |" for source in SOURCES.values()]
    return "\n".join(["## Sources", "", "| source | |", "|---|---|", *rows, ""])


def _table(title: str, results: list[Result], code: str) -> str:
    head = (
        "| source | firmware | disk | sectors | size | card | memory | chipset | processor | NVRAM | result | time |"
    )
    lines = [f"## {title}", "", head, "|" + "---|" * 12]
    for result in results:
        t = result.target
        words = (
            f"`{result.source}`", t["firmware"], t["bus"], t["sector"], t["size"], t["nic"], t["memory"], t["chipset"],
            t["cpu"] or "max", t["nvram"], _WORDS[result.status] + ("" if result.code == code else " ᵉ"),
            format_duration(result.total) if result.total >= 1 else "",
        )  # fmt: skip
        lines.append("| " + " | ".join(str(word) for word in words) + " |")
    return "\n".join([*lines, ""])


def _reasons(results: list[Result]) -> str:
    lines: list[str] = []
    for status, title in (
        ("refused", "Why the plan refused"),
        ("adapt-failed", "Adaptation failed"),
        ("no-boot", "Did not boot"),
        ("broken", "Booted, but not whole"),
        ("untested", "Untested"),
        ("lab-failed", "Where the test itself failed"),
    ):
        reasons: dict[str, list[str]] = {}
        for result in results:
            if result.status == status:
                reasons.setdefault(_one_line(result.reason), []).append(result.cell)
        if reasons:
            lines += [f"## {title}", ""]
            lines += [f"- {reason}: {', '.join(f'`{cell}`' for cell in cells)}" for reason, cells in reasons.items()]
            lines.append("")
    return "\n".join(lines)


def _one_line(text: str) -> str:
    words = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return words[:600].replace("|", "\\|").replace("<", "&lt;").rstrip(".:") or "no reason given"


def _times(results: list[Result]) -> str:
    """What a cell's time goes to: medians over the cells that booted."""
    booted = [result for result in results if result.status == "booted"]
    if not booted:
        return ""
    lines = ["## Where the time goes", "", f"Medians of the {len(booted)} cells that booted", ""]
    kinds = Counter(result.accelerator for result in booted)
    versions = Counter(result.emulator or "7.2" for result in booted)
    lines[2] += (
        f" (QEMU's accelerator: {', '.join(f'{kind} {n}' for kind, n in kinds.most_common())}; its version: "
        f"{', '.join(f'{version} {n}' for version, n in versions.most_common())})."
    )
    lines += ["| phase | median | longest |", "|---|---|---|"]
    for phase in ("medium", "restore", "adapt", "restore and adapt", "first boot", "second boot"):
        times = sorted(result.seconds[phase] for result in booted if phase in result.seconds)
        if times:
            lines.append(f"| {phase} | {format_duration(times[len(times) // 2])} | {format_duration(times[-1])} |")
    days = sorted(time.strftime("%Y-%m-%d", time.gmtime(result.at)) for result in results)
    return "\n".join([*lines, "", f"Measured {days[0]} to {days[-1]}, on a machine that did other work as well.", ""])


def _missing(results: Mapping[str, Result], cells: Mapping[str, Cell]) -> str:
    left = [name for name in cells if name not in results]
    if not left:
        return ""
    return "\n".join([f"## Not run yet ({len(left)})", "", *(f"- `{name}`" for name in left), ""])
