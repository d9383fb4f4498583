"""Pure: which of the host's old NICs becomes which NIC of this machine, and the files that make it so.

The old *name* is kept and bound to the new NIC's MAC (a systemd .link file). So bridges, bonds, VLANs, firewalls and
VM definitions that use the name work on, whatever program configures them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recovery.adapt.netconfig import NetConfig
from recovery.machine.model import Nic

#: ``PermanentMACAddress=`` exists since this systemd; older ones would ignore it and match every interface.
_PERMANENT_SINCE = 245

#: Interface names are at most 15 bytes.
_NAME_LENGTH = 15


@dataclass(frozen=True)
class OldNic:
    """A NIC that the host's configuration names. ``carries`` are the addresses that need it, in words.

    One that is known by its MAC alone has it as its name: any name will do then, only the MAC has to be replaced.
    """

    name: str
    mac: str = ""
    carries: tuple[str, ...] = ()


@dataclass(frozen=True)
class NicPlan:
    """``pairs``: old NIC -> NIC of this machine. ``spares`` must give up their name, for an old NIC has it.
    ``lost`` are addresses that will not come up, ``without`` names of old NICs that got none."""

    pairs: tuple[tuple[OldNic, Nic], ...] = ()
    spares: tuple[tuple[Nic, str], ...] = ()
    lost: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


def old_nics(config: NetConfig) -> list[OldNic]:
    """The NICs that the configuration names; those that carry addresses first, else in its order."""
    named = {mac: name for name, mac in config.macs.items() if ":" not in name}
    nics = []
    for name in config.physical():
        if ":" in name and named.get(name) in config.names:
            continue  # the same NIC, which another file calls by its name
        carries = config.carried(name) + [c for mac, n in named.items() if n == name for c in config.carried(mac)]
        nics.append(OldNic(name, config.macs.get(name, ""), tuple(dict.fromkeys(carries))))
    return sorted(nics, key=lambda nic: not nic.carries)


def map_nics(old: Sequence[OldNic], new: Iterable[Nic]) -> NicPlan:
    """The same MAC is the same NIC (the card moved along). The rest: old NICs that carry addresses first, to new
    NICs with a link first, then by name. A NIC is never given twice."""
    free = sorted((n for n in new if n.mac and n.name != "lo"), key=lambda n: (not n.carrier, natural(n.name)))
    pairs: dict[str, tuple[OldNic, Nic]] = {}
    for nic in old:
        same = next((n for n in free if nic.mac and n.mac.lower() == nic.mac), None)
        if same:
            pairs[nic.name] = (nic, same)
            free.remove(same)
    for nic in old:
        if nic.name not in pairs and free:
            pairs[nic.name] = (nic, free.pop(0))
    up = {address for nic, _ in pairs.values() for address in nic.carries}
    missing = [nic for nic in old if nic.name not in pairs]
    lost = dict.fromkeys(a for nic in missing for a in nic.carries if a not in up)
    taken = set(pairs)
    return NicPlan(
        pairs=tuple(pairs[nic.name] for nic in old if nic.name in pairs),
        spares=tuple((nic, f"spare{i}") for i, nic in enumerate(n for n in free if n.name in taken)),
        lost=tuple(lost),
        without=tuple(nic.name for nic in missing),
    )


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """Sort ``enp10s0`` after ``enp9s0``."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", name))


def link_files(plan: NicPlan, systemd: int) -> dict[str, str]:
    """File name -> content, for /etc/systemd/network. ``systemd`` is the host's version (0: not known)."""
    wanted = [(old.name, nic) for old, nic in plan.pairs if ":" not in old.name]
    wanted += [(name, nic) for nic, name in plan.spares]
    return {f"10-rekindle-{name}.link": link_file(name, nic.mac, systemd) for name, nic in wanted}


def link_file(name: str, mac: str, systemd: int) -> str:
    """A .link file that gives ``name`` to the NIC with this MAC."""
    if systemd >= _PERMANENT_SINCE:
        match = f"PermanentMACAddress={mac.lower()}"
    else:
        # A VLAN or bridge copies its NIC's MAC: the type keeps it from being renamed too.
        match = f"MACAddress={mac.lower()}\nType=ether"
    note = "# Written by rekindle: the host was restored to a machine with other NICs and keeps its interface names."
    return f"{note}\n[Match]\n{match}\n\n[Link]\nName={name[:_NAME_LENGTH]}\n"


def systemd_version(files: Iterable[str]) -> int:
    """The version in names such as ``libsystemd-shared-252.so``; 0 when there is none."""
    found = (re.search(r"libsystemd-shared-(\d+)", file) for file in files)
    return max((int(match[1]) for match in found if match), default=0)


def replace_macs(text: str, macs: Mapping[str, str]) -> str:
    """Old MAC -> new MAC where a file *matches* a NIC by it (networkd and .link ``[Match]``, netplan ``match:``,
    NetworkManager ``mac-address``, ifcfg ``HWADDR``). Where a MAC is *set*, it stays."""
    lines: list[str] = []
    section = ""
    match_indent = -1
    for line in text.splitlines(keepends=True):
        content = line.strip()
        indent = len(line) - len(line.lstrip())
        if content.startswith("[") and content.endswith("]"):
            section = content[1:-1].lower()
        if content and indent <= match_indent:
            match_indent = -1
        if content.startswith("match:"):
            match_indent = indent
        matches = (
            (section == "match" and re.match(r"(Permanent)?MACAddress\s*=", content))
            or (section in ("ethernet", "802-3-ethernet") and re.match(r"mac-address\s*=", content))
            or (match_indent >= 0 and "macaddress" in content)
            or re.match(r"HWADDR\s*=", content)
        )
        lines.append(_replace(line, macs) if matches else line)
    return "".join(lines)


def _replace(line: str, macs: Mapping[str, str]) -> str:
    return re.sub(r"(?i)(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", lambda m: macs.get(m[0].lower(), m[0]), line)


def comment_out(text: str) -> str:
    """Every effective line of a file made a comment."""
    return "".join(
        line if not line.strip() or line.lstrip().startswith("#") else f"#rekindle# {line}"
        for line in text.splitlines(keepends=True)
    )
