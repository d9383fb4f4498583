"""Thin pools without device-mapper: their metadata by ``thin_restore``, LVM's by ``vgcfgrestore``."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from pathlib import Path

from recovery.commands import run
from recovery.units import KIB, MIB
from tests.e2e.lab.host_image.lvm import only

CHUNK = 64 * KIB
META, DATA, VIRTUAL = 4 * MIB, 48 * MIB, 40 * MIB
_EXTENT = 4 * MIB

_VOLUMES = f"""
pool {{ id = "N2c8bV-9hd4-vizf-c0Rd-IEal-b7hg-WG0Lpn"
status = ["READ", "WRITE", "VISIBLE"]
flags = []
segment_count = 1
segment1 {{ start_extent = 0
extent_count = {DATA // _EXTENT}
type = "thin-pool"
metadata = "pool_tmeta"
pool = "pool_tdata"
transaction_id = 2
chunk_size = {CHUNK // 512}
discards = "passdown"
zero_new_blocks = 1 }} }}
NAME {{ id = "N2c8bV-9hd4-vizf-c0Rd-IEal-b7hg-WG0Lpo"
status = ["READ", "WRITE", "VISIBLE"]
flags = []
segment_count = 1
segment1 {{ start_extent = 0
extent_count = {VIRTUAL // _EXTENT}
type = "thin"
thin_pool = "pool"
transaction_id = 1
device_id = 7 }} }}
"""


def write_metadata(file: Path, volumes: Mapping[int, Mapping[int, int]], *, chunk: int = CHUNK) -> None:
    """dm-thin's metadata into ``file``, which has its size: number of a volume -> its chunk -> chunk of the pool."""
    most = max((block for mapped in volumes.values() for block in mapped.values()), default=0) + 1
    lines = [f'<superblock uuid="" time="3" transaction="2" version="2" data_block_size="{chunk // 512}" '
             f'nr_data_blocks="{most}">']  # fmt: skip
    for number, mapped in sorted(volumes.items()):
        lines.append(f'<device dev_id="{number}" mapped_blocks="{len(mapped)}" transaction="0" creation_time="0" '
                     'snap_time="0">')  # fmt: skip
        lines += [f'<single_mapping origin_block="{at}" data_block="{block}" time="{at % 4}"/>'
                  for at, block in sorted(mapped.items())]  # fmt: skip
        lines.append("</device>")
    source = file.with_suffix(".xml")
    source.write_text("\n".join([*lines, "</superblock>"]))
    run(["thin_restore", "-i", source, "-o", file])


def make(device: Path, group: str, where: Mapping[str, int], name: str, folder: Path) -> bytes:
    """Make a pool of the LVs ``new_meta`` and ``new_data`` (``where``: their bytes on ``device``) and in it the volume
    ``name``, whose chunks lie here and there; its content."""
    dice = random.Random(7)
    blocks = dice.sample(range(DATA // CHUNK), 200)
    chunks = [0, *sorted(dice.sample(range(1, VIRTUAL // CHUNK), 119))]
    mapped = dict(zip(chunks, blocks, strict=False))
    metadata = folder / "thin.meta"
    with metadata.open("wb") as file:
        file.truncate(META)
    # Another volume of the pool lies in between, and has the number before.
    write_metadata(metadata, {3: dict(enumerate(blocks[150:])), 7: mapped})
    content = bytearray(VIRTUAL)
    with device.open("r+b", buffering=0) as disk:
        disk.seek(where["new_meta"])
        disk.write(metadata.read_bytes())
        for block in range(DATA // CHUNK):
            disk.seek(where["new_data"] + block * CHUNK)
            disk.write(b"of another, or given back " * 2000)
        for at, block in mapped.items():
            data = content[at * CHUNK : (at + 1) * CHUNK] = dice.randbytes(CHUNK)
            disk.seek(where["new_data"] + block * CHUNK)
            disk.write(data)
    _write_down(device, group, name, folder / "vg.conf")
    return bytes(content)


def _write_down(device: Path, group: str, name: str, file: Path) -> None:
    """Tell LVM of the pool. LVM itself checks it; without device-mapper it makes no pool of its own."""
    run(["vgcfgbackup", *only(device), "-f", file, group])
    text = file.read_text()
    for kind in ("meta", "data"):
        text = re.sub(
            rf'new_{kind} \{{(.*?), "VISIBLE"', rf"pool_t{kind} {{\1", text, count=1, flags=re.DOTALL
        )  # fmt: skip
    head, found, tail = text.rpartition("\t}\n\n}")
    assert found
    file.write_text(head + _VOLUMES.replace("NAME", name) + found + tail)
    run(["vgcfgrestore", *only(device), "-f", file, "--force", group])
