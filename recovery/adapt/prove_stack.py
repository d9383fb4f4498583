"""What the initramfs must have when the root lies on md, LUKS or LVM: the tools that bring it up, and their modules.

Pure apart from reading the list of the initramfs, which is the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from recovery.adapt.devices import Node
from recovery.adapt.luks import CryptEntry

#: lsblk's type of a layer -> (what it is called, patterns of files one of which the initramfs must have).
#: initramfs-tools has the programs themselves; dracut with systemd has systemd-cryptsetup in place of cryptsetup.
_PROGRAMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "raid": ("mdadm", (r"(^|/)s?bin/mdadm$",)),
    "crypt": ("cryptsetup", (r"(^|/)s?bin/cryptsetup$", r"(^|/)systemd-cryptsetup$")),
    "lvm": ("lvm", (r"(^|/)s?bin/lvm$",)),
}

#: Needed to activate a thin pool: lvm runs thin_check, a link to pdata_tools.
_THIN = ("thin_check", (r"(^|/)s?bin/(thin_check|pdata_tools)$",))

_MODULES = {"crypt": ("dm_crypt",), "lvm": ("dm_mod",)}


def layer(node: Node) -> str:
    """``raid``, ``crypt``, ``lvm``, or empty for what needs no tool."""
    return next((kind for kind in _PROGRAMS if node.kind.startswith(kind)), "")


def is_thin(chain: Sequence[Node]) -> bool:
    """Whether the first of ``chain`` lies on a thin pool (its data's device is among what is below)."""
    return any(node.kind == "lvm" and re.search(r"[_-](tdata|tpool)$", node.path) for node in chain[1:])


def stack_modules(chain: Iterable[Node]) -> list[str]:
    """The kernel modules without which these layers do not come up."""
    chain = tuple(chain)
    names = [name for node in chain for name in _MODULES.get(layer(node), ())]
    names += [node.kind for node in chain if layer(node) == "raid" and node.kind in ("raid0", "raid1", "raid10")]
    names += ["dm_thin_pool"] if is_thin(chain) else []
    return list(dict.fromkeys(names))


def missing_programs(chain: Iterable[Node], listing: Iterable[str]) -> list[str]:
    """Programs that the layers of ``chain`` need and the initramfs (its files as lsinitramfs lists them) has not."""
    chain = tuple(chain)
    wanted = [_PROGRAMS[kind] for kind in dict.fromkeys(layer(node) for node in chain) if kind]
    wanted += [_THIN] if is_thin(chain) else []
    files = [line.split()[-1] for line in listing if line.strip()]
    return [
        name for name, patterns in wanted
        if not any(re.search(pattern, file) for file in files for pattern in patterns)
    ]  # fmt: skip


def unlisted(chain: Iterable[Node], entries: Iterable[CryptEntry]) -> list[str]:
    """Mappings below the root that the host's crypttab does not name: nothing would open them at boot."""
    known = {f"/dev/mapper/{entry.name}" for entry in entries}
    return [node.path for node in chain if node.kind == "crypt" and node.path not in known]
