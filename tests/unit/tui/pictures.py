"""Pictures of the console's screens as the medium shows them: its font, its palette, pixel by pixel.

``scripts/pictures`` makes those of ``docs/img``; ``--font FOLDER`` composes ``tests/support/console.psf`` anew from
the console fonts of Debian's ``console-setup-linux`` in FOLDER, the way the image builder does.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import time
from pathlib import Path

import msgspec
from PIL import Image
from rekindle_image.code import console_characters
from rekindle_image.psf import Font, compose, read_psf, write_psf2
from rich.style import Style

from recovery.events import Progress
from recovery.plan.model import RestorePlan
from recovery.tui.screens import point as point_screen
from tests.unit.tui.console import Console, console
from tests.unit.tui.fake_engine import FakeEngine
from tests.unit.tui.fake_world import BLANK, NOW, USED, make_point

ROOT = Path(__file__).parents[3]
FONT = ROOT / "tests/support/console.psf"
PALETTE = ROOT / "image-build/rekindle_image/rootfs/etc/rekindle/palette"
SIZES = ((80, 25), (128, 48))


def compose_font(folder: Path) -> bytes:
    """The medium's font: Terminus, else VGA, blocks by rule; as ``rekindle_image.code.build_font``."""
    files = [*folder.glob("*Terminus16.psf.gz"), *folder.glob("*VGA16.psf.gz")]
    files.sort(key=lambda p: ("Terminus" not in p.name, "Uni2" not in p.name, p.name))
    fonts = [read_psf(gzip.decompress(file.read_bytes())) for file in files]
    font, missing = compose(console_characters(), fonts)
    if missing:
        raise SystemExit(f"no font in {folder} has {missing}")
    return write_psf2(font)


def palette() -> list[tuple[int, int, int]]:
    """The sixteen colours of the medium's VTs: three lines of sixteen numbers, red, green and blue."""
    rows = [list(map(int, line.split(","))) for line in PALETTE.read_text().splitlines()[:3]]
    return list(zip(*rows, strict=True))


_CYAN = 6


class Screenshot:
    """Draws what a console shows."""

    def __init__(self) -> None:
        self._font: Font = read_psf(FONT.read_bytes())
        self._colours = palette()
        self._glyphs: dict[str, Image.Image] = {}

    def draw(self, shown: Console) -> Image.Image:
        """The whole screen. Raises KeyError for a character that the font lacks."""
        height = self._font.height
        size = shown.app.size
        image = Image.new("RGB", (size.width * 8, size.height * height), self._colours[0])
        x = y = 0
        for segment in shown.segments():
            if segment.control:
                continue
            for character in segment.text:
                if character == "\n":
                    x, y = 0, y + 1
                    continue
                front, back = self._pair(segment.style)
                box = (x * 8, y * height, x * 8 + 8, y * height + height)
                image.paste(back, box)
                image.paste(front, box, self._glyph(character))
                x += 1
        return image

    def _glyph(self, character: str) -> Image.Image:
        if character not in self._glyphs:
            bitmap = self._font.glyphs[character]
            self._glyphs[character] = Image.frombytes("1", (8, self._font.height), bitmap).convert("L")
        return self._glyphs[character]

    def _pair(self, style: Style | None) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        # A colour VT has no underline: it shows cyan instead.
        underlined = style is not None and style.underline
        front = self._colours[_CYAN] if underlined else self._colour(style, "color", 7)
        back = self._colour(style, "bgcolor", 0)
        return (back, front) if style is not None and style.reverse else (front, back)

    def _colour(self, style: Style | None, name: str, otherwise: int) -> tuple[int, int, int]:
        colour = getattr(style, name, None)
        if colour is None or colour.is_default:
            return self._colours[otherwise]
        return self._colours[colour.number] if colour.number is not None else tuple(colour.triplet)


class ShownEngine(FakeEngine):
    """A double with a longer history, and a run that is as far as a picture of it should be."""

    def __init__(self) -> None:
        super().__init__(address=True, disks=2)
        hours = [0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4, 9, 15, 21, 26, 27, 31, 38, 50, 61, 73, 97]
        points = []
        for number, hour in enumerate(reversed(hours), 1):
            base = make_point(number % 4 + 2, 2)
            grown = tuple(
                msgspec.structs.replace(d, changed=d.changed // (7 if number != 15 else 1)) for d in base.body.disks
            )
            consistency = "application" if number % 3 else "crash"
            body = msgspec.structs.replace(
                base.body, disks=grown, consistency=consistency, note="before the update" if number == 11 else ""
            )
            header = msgspec.structs.replace(base.header, created=NOW - hour * 3600)
            points.append(msgspec.structs.replace(base, id=f"{number:02x}" * 32, header=header, body=body))
        self.all_points = points

    def _restore(self, plan: RestorePlan, step: str) -> None:
        if step.endswith("disk2"):
            return super()._restore(plan, step)
        source = plan.assignments[0].source
        begin, done = time.time() - 75, 0
        for second in range(75):
            rate = 1.2e9 * (0.35 if 30 < second < 34 else 0.0 if 50 < second < 57 else 0.8 + 0.2 * (second % 5) / 4)
            done += int(rate)
            note = f"reconnecting, attempt 3, next in {57 - second} s" if 50 < second < 57 else ""
            self._tell(
                Progress(at=begin + second, step=step, disk=source.name, done=min(done, source.size), note=note,
                         total=source.size, transferred=done // 5, written=done // 3, skipped=0, rate=rate,
                         eta=(source.size - done) / 1.1e9, retries=3 if second > 50 else 0)
            )  # fmt: skip
        while not self.hold.wait(0.05):
            pass
        return None


async def take(folder: Path, size: tuple[int, int]) -> None:
    """Every main screen of this size as ``<name>-<columns>x<rows>.png``."""
    camera = Screenshot()
    engine = ShownEngine()
    made: list[Path] = []

    async def picture(name: str) -> None:
        await asyncio.sleep(0.6)
        await c.settle()
        path = folder / f"{name}-{size[0]}x{size[1]}.png"
        camera.draw(c).convert("P", palette=Image.Palette.ADAPTIVE, colors=16).save(path, optimize=True)
        made.append(path)

    async with console(engine, size, task="") as c:
        await c.on("Task")
        await picture("task")
        await c.task()
        await c.on("Repository")
        await c.shows("trusted")
        await picture("repository")
        await c.sign_in()
        await c.press("enter")
        await c.on("Point")
        await c.until(lambda: "reading" not in c.text.lower(), "all details")
        await c.press("down", "down", "down")
        await picture("point")
        await c.press("enter")
        await c.on("Target disks")
        c.app.screen.query_one("#sources").focus()
        await c.press("down")
        await picture("target-disks")
        c.app.screen.query_one("#continue").focus()
        await c.press("enter")
        await c.on("Plan")
        await c.shows("Nothing was written yet")
        await picture("plan")
        await c.press("enter")
        await c.on("Confirm")
        await c.type(BLANK.serial)
        await c.press("enter")
        await picture("confirm")
        await c.type(USED.serial)
        await c.press("enter")
        engine.hold.clear()
        await c.press("left", "enter")
        await c.on("Restore")
        await c.shows("of 160 GiB")
        await picture("restore")
        engine.hold.set()
        await c.on("Result")
        await c.shows("256 MiB of it read back as a sample")
        await picture("result")
        c.app.screen.query_one("#qr").focus()
        await c.press("enter")
        await c.shows("It says")
        await picture("qr")
    async with console(FakeEngine(), size, task="repair") as c:
        await c.on("Repair boot")
        await c.press("down")
        await picture("repair")
    print(f"{len(made)} pictures of {size[0]}x{size[1]} in {folder}")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "docs/img")
    parser.add_argument("--font", type=Path, metavar="FOLDER", help="compose the font anew from the fonts in FOLDER")
    options = parser.parse_args()
    if options.font:
        FONT.write_bytes(compose_font(options.font))
        print(f"wrote {FONT}")
        return
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    setattr(point_screen, "now", lambda: NOW)  # noqa: B010 - the time of the pictures stands still
    options.folder.mkdir(parents=True, exist_ok=True)
    for size in SIZES:
        asyncio.run(take(options.folder, size))


if __name__ == "__main__":
    main()
