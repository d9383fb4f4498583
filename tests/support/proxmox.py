"""The database of a Proxmox host, as ``pmxcfs`` leaves it on the disk."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from recovery.capture.proxmox import DATABASE


def lay_database(folder: Path, files: dict[str, str], *, hostname: str = "pve1") -> Path:
    """Make ``folder`` the root of a host with this content of /etc/pve; all of it is still in the write-ahead log, as
    after a power cut."""
    database = folder / DATABASE.lstrip("/")
    database.parent.mkdir(parents=True)
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    (folder / "etc/hostname").write_text(f"{hostname}\n")
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(
        "CREATE TABLE tree (inode INTEGER PRIMARY KEY NOT NULL, parent INTEGER NOT NULL, version INTEGER NOT NULL, "
        "writer INTEGER NOT NULL, mtime INTEGER NOT NULL, type INTEGER NOT NULL, name TEXT NOT NULL, data BLOB)"
    )
    inodes = {"": 0}
    rows: list[tuple[int, int, str, bytes | None]] = [(0, 0, "__version__", None)]
    for path, text in files.items():
        for depth in range(path.count("/") + 1):
            part = "/".join(path.split("/")[: depth + 1])
            if part not in inodes:
                inodes[part] = len(inodes)
                parent, _, name = part.rpartition("/")
                rows.append((inodes[part], inodes[parent], name, text.encode() if part == path else None))
    for inode, parent_inode, name, data in rows:
        connection.execute("INSERT INTO tree VALUES (?, ?, 1, 0, 0, 8, ?, ?)", (inode, parent_inode, name, data))
    connection.commit()
    copy = {suffix: Path(f"{database}{suffix}").read_bytes() for suffix in ("", "-wal")}
    connection.close()
    for suffix, data in copy.items():
        Path(f"{database}{suffix}").write_bytes(data)
    return folder
