"""LUKS volumes of the restored host: opened with the operator's passphrase for the work, under the host's own names.

A passphrase is in memory and on a program's standard input only: never an argument, a file, an event or a log line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from recovery.adapt.devices import Node, resolve
from recovery.commands import Completed, run
from recovery.errors import CommandError
from recovery.format.point import PointDisk

#: cryptsetup's exit codes: the passphrase opens no key slot; not enough memory for the key derivation (Argon2).
WRONG_PASSPHRASE = 2
NO_MEMORY = 3

#: Seconds. Argon2 is meant to be slow, and an emulated processor is.
_TIMEOUT = 900

#: Names of mappings while the host's own name for them is not known yet.
_PREFIX = "/dev/mapper/rekindle-"


@dataclass(frozen=True, repr=False)
class Passphrases:
    """What may open the host's encrypted volumes. Shown nowhere, not even in a traceback."""

    words: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.words)

    def __repr__(self) -> str:
        return f"Passphrases({len(self.words)} kept)"


@dataclass(frozen=True)
class CryptEntry:
    """A line of crypttab: ``name`` below /dev/mapper, the device as the host names it, its key file and options."""

    name: str
    source: str
    key: str = "none"
    options: tuple[str, ...] = ()


def parse_crypttab(text: str) -> list[CryptEntry]:
    """The entries in the order of the file; comments and broken lines are left out. Pure."""
    entries = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and not words[0].startswith("#"):
            options = tuple(words[3].split(",")) if len(words) > 3 else ()
            entries.append(CryptEntry(words[0], words[1], words[2] if len(words) > 2 else "none", options))
    return entries


def closed(nodes: Sequence[Node]) -> list[Node]:
    """The LUKS volumes that are not open. Pure."""
    return [n for n in nodes if n.content == "crypto_LUKS" and not any(c.lies_on(n.path) for c in nodes)]


def opens(device: str, passphrases: Passphrases) -> Completed | None:
    """The failed answer of cryptsetup when none of the passphrases opens ``device`` (a device, or a file that begins
    with the LUKS header and key slots); None when one does. Nothing is activated."""
    failed: Completed | None = Completed((), WRONG_PASSPHRASE)
    for word in passphrases.words:
        done = _cryptsetup("open", "--type", "luks", "--test-passphrase", device, word=word)
        if done:
            return None
        failed = done
    return failed


def open_volume(node: Node, passphrases: Passphrases) -> str:
    """Open one; returns why it stays closed, empty when it is open."""
    name = f"{_PREFIX}{node.uuid[:8]}".removeprefix("/dev/mapper/")
    done = Completed((), WRONG_PASSPHRASE)
    for word in passphrases.words:
        done = _cryptsetup("open", "--type", "luks", node.path, name, word=word)
        if done:
            return ""
    return why_not(done)


def why_not(done: Completed) -> str:
    """Why cryptsetup did not open a volume, in words that can stand in a sentence. Pure."""
    if done.returncode == WRONG_PASSPHRASE:
        return "the passphrase does not open it"
    if done.returncode == NO_MEMORY:
        return "its key needs more memory than this machine has free"
    return (done.stderr.strip() or f"cryptsetup ended with code {done.returncode}").splitlines()[-1].rstrip(".")


def resize(node: Node, passphrases: Passphrases) -> None:
    """An open volume takes all of the device that it lies on. Raises CommandError."""
    done = Completed(("cryptsetup",), WRONG_PASSPHRASE)
    for word in passphrases.words:
        done = _cryptsetup("resize", node.path.removeprefix("/dev/mapper/"), word=word)
        if done:
            return
    raise CommandError(f"the encrypted volume {node.path} was not resized: {why_not(done)}.")


def close(node: Node) -> bool:
    """Close an open volume; False when something uses it."""
    return bool(run(["cryptsetup", "close", node.path.removeprefix("/dev/mapper/")], check=False, timeout=60))


def host_names(entries: Iterable[CryptEntry], nodes: Sequence[Node], disks: Sequence[PointDisk]) -> dict[str, str]:
    """Mapping that is open (its path) -> the name that the host's crypttab gives it. Pure.

    The host's tools look a mapping up in crypttab by its name, so under another one its initramfs would not open it.
    """
    names: dict[str, str] = {}
    for entry in entries:
        below = resolve(entry.source, nodes, disks, "crypto_LUKS")
        mapping = next((n for n in nodes if n.kind == "crypt" and below and n.lies_on(below.path)), None)
        if mapping is not None and mapping.path != f"/dev/mapper/{entry.name}":
            names[mapping.path] = entry.name
    return names


def rename(names: dict[str, str]) -> None:
    """Give open mappings their host's names. Raises CommandError."""
    for path, name in names.items():
        run(["dmsetup", "rename", path.removeprefix("/dev/mapper/"), name])
    if names:
        run(["udevadm", "settle", "--timeout=30"], check=False)


def _cryptsetup(*words: str, word: str) -> Completed:
    command, *rest = words
    # --key-file=- takes the bytes as they are; asking would want a terminal.
    return run(
        ["cryptsetup", command, "--batch-mode", "--key-file=-", *rest],
        check=False, input=word.encode(), timeout=_TIMEOUT,
    )  # fmt: skip
