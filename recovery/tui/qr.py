"""The summary of a run as a QR code, for the phone of whoever stands before the machine. Pure.

Two modules a cell, with half blocks: version 6 with a border fits a console of 80x24. The characters are those of
QR's alphanumeric mode, which holds half as many again as bytes.
"""

from __future__ import annotations

import unicodedata

import segno

from recovery.engine.api import Report
from recovery.tui.describe import utc
from recovery.units import format_duration, format_size

#: QR's alphanumeric mode.
_ALPHABET = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")
#: Characters of the summary: what version 6 holds with the least error correction. A screen does not get dirty.
LONGEST = 195
#: Light modules around the code: 4 by the standard, 2 are enough for every phone.
_BORDERS = (4, 3, 2)
#: Upper and lower half light or dark -> the cell. Light is drawn, because the console is dark.
_CELLS = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}


def summary(report: Report) -> str:
    """What a person copies onto paper or into a ticket: host, point, result, bytes, roots; ``LONGEST`` at most."""
    outcome = "INCOMPLETE" if report.damaged else "OK"
    vm = f" VM {report.vm.name}" if report.vm else ""
    parts = [f"REKINDLE {report.host}{vm} {outcome}", f"POINT {report.point[:12]} {utc(report.point_created)}"]
    if not report.point:
        parts[1:] = ["REPAIR"]
    parts.append(f"DONE {utc(report.finished)} IN {format_duration(report.finished - report.started)}")
    if report.warnings:
        parts.append(f"WARNINGS {len(report.warnings)}")
    for disk in report.disks:
        checked = "ALL READ BACK" if disk.root_matched else "SAMPLE READ BACK"
        parts.append(f"{disk.disk} {checked} ROOT {disk.root[:8]}")
    if report.vm:
        parts.append(f"IN {report.vm.place}")
        parts += [f"{file.path.rpartition('/')[2]} {format_size(file.size)}" for file in report.vm.files]
    if report.disks:
        written = sum(disk.written + disk.zeroed for disk in report.disks)
        parts.append(f"WRITTEN {format_size(written)} NET {format_size(sum(d.transferred for d in report.disks))}")
    text = ""
    for part in map(alphanumeric, parts):
        if len(text) + 3 + len(part) <= LONGEST:
            text += f" / {part}" if text else part[:LONGEST]
    return text


def alphanumeric(text: str) -> str:
    """In QR's alphabet: capital letters without accents, and ``-`` for what it lacks."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().upper()
    return "".join(character if character in _ALPHABET else "-" for character in plain)


def draw(text: str, columns: int, rows: int) -> list[str] | None:
    """The code as lines of half blocks, the widest border that fits; None when there is no room for any."""
    code = segno.make_qr(text, error="l", boost_error=False)
    for border in _BORDERS:
        modules = [[bool(module) for module in line] for line in code.matrix_iter(border=border)]
        if len(modules) % 2:
            modules.append([False] * len(modules[0]))
        if len(modules) // 2 <= rows and len(modules[0]) <= columns:
            pairs = zip(modules[::2], modules[1::2], strict=True)
            return ["".join(_CELLS[cell] for cell in zip(upper, lower, strict=True)) for upper, lower in pairs]
    return None
