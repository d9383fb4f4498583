"""The QR code of the report as a phone sees it: drawn with the pixels of the console font, read by another decoder."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from recovery.plan.model import Choices
from recovery.restore.report import Damage
from recovery.tui.glyphs import DRAWABLE
from recovery.tui.qr import LONGEST, alphanumeric, draw, summary
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import BLANK, USED


def report(disks: int = 2):  # type: ignore[no-untyped-def]  # noqa: ANN201
    engine = FakeEngine(disks=disks)
    point = engine.all_points[-1]
    targets = {f"disk{n}": disk.id for n, disk in enumerate((BLANK, USED)[:disks], 1)}
    return engine._report(engine.plan(Choices(host=point.header.host, point=point.id, targets=targets)))


def picture(lines: list[str], cell: tuple[int, int], around: int = 3) -> Image.Image:
    """The screen as pixels: light as VGA's grey on black, with black beside it as on the console."""
    width, height = cell
    image = Image.new("L", ((len(lines[0]) + 2 * around) * width, (len(lines) + 2 * around) * height), 0)
    for y, line in enumerate(lines):
        for x, character in enumerate(line):
            halves = {"█": (True, True), "▀": (True, False), "▄": (False, True), " ": (False, False)}[character]
            for half, light in enumerate(halves):
                if light:
                    left, top = (x + around) * width, (y + around) * height + half * (height // 2)
                    image.paste(170, (left, top, left + width, top + height // 2))
    return image


@pytest.mark.parametrize("cell", [(8, 16), (9, 16)], ids=["frame buffer", "VGA text mode"])
@pytest.mark.parametrize(("columns", "rows"), [(54, 24), (54, 23), (134, 49)], ids=["80x25", "80x24", "160x50"])
def test_a_phone_reads_it(cell: tuple[int, int], columns: int, rows: int, tmp_path: Path) -> None:
    decoder = shutil.which("zbarimg")
    assert decoder, "zbarimg is missing: scripts/setup installs zbar-tools"
    text = summary(report())
    lines = draw(text, columns, rows)
    assert lines is not None, "no room on the console"
    assert len(lines) <= rows and max(map(len, lines)) <= columns
    assert set("".join(lines)) <= DRAWABLE
    file = tmp_path / "screen.png"
    picture(lines, cell).save(file)
    read = subprocess.run([decoder, "--quiet", "--raw", str(file)], capture_output=True, text=True, check=True).stdout
    assert read.rstrip("\n") == text


def test_the_longest_summary_fits_the_smallest_console() -> None:
    assert draw("A" * LONGEST, 54, 23) is not None
    assert draw("A" * LONGEST, 30, 23) is None


def test_the_summary_says_what_matters() -> None:
    made = report()
    text = summary(made)
    for part in (
        "HV1.EXAMPLE.ORG OK",
        "POINT 040404040404",
        "IN 5:00",
        "WARNINGS 1",
        "DISK1 SAMPLE READ BACK ROOT 3FA9C1D2",
    ):
        assert part in text
    lost = msgspec.structs.replace(made.disks[0], damaged=(Damage(offset=0, length=512),))
    assert "INCOMPLETE" in summary(msgspec.structs.replace(made, disks=(lost, *made.disks[1:])))
    many = msgspec.structs.replace(made, disks=made.disks * 9, host="hôte-éà." * 9)
    assert len(summary(many)) <= LONGEST
    assert summary(many).startswith("REKINDLE HOTE-EA.")
    assert alphanumeric("vg_0 ß日") == "VG-0 "
