"""Step: the host's addresses come up on this machine's NICs. Before the initramfs is made: it renames NICs first."""

from __future__ import annotations

from collections.abc import Callable

from recovery.adapt import netconfig
from recovery.adapt.host import HostTree
from recovery.adapt.model import Job
from recovery.adapt.netconfig import NetConfig
from recovery.adapt.netplan import read_netplan
from recovery.adapt.nics import comment_out, link_files, map_nics, old_nics, replace_macs, systemd_version

TITLE = "Bring the host's addresses up on this machine's NICs"

_LINKS = "/etc/systemd/network"
_RULES = "/etc/udev/rules.d/70-persistent-net.rules"

#: Where each program keeps its configuration, and how it is read. A folder's files in the order of their names.
_SOURCES: tuple[tuple[str, Callable[[str, NetConfig], None]], ...] = (
    ("/etc/network/interfaces", netconfig.read_ifupdown),
    ("/etc/network/interfaces.d/*", netconfig.read_ifupdown),
    ("/etc/netplan/*.yaml", read_netplan),
    ("/etc/systemd/network/*.netdev", netconfig.read_networkd),
    ("/etc/systemd/network/*.network", netconfig.read_networkd),
    ("/etc/systemd/network/*.link", netconfig.read_networkd),
    ("/etc/NetworkManager/system-connections/*", netconfig.read_keyfile),
    ("/etc/sysconfig/network-scripts/ifcfg-*", netconfig.read_ifcfg),
    ("/etc/sysconfig/network/ifcfg-*", netconfig.read_ifcfg),
    (_RULES, netconfig.read_persistent_rules),
)

_SYSTEMD_LIBRARIES = ("/usr/lib/systemd", "/lib/systemd", "/usr/lib/x86_64-linux-gnu/systemd", "/usr/lib64/systemd")


def bring_up(job: Job) -> str:
    """Bind the host's interface names to this machine's NICs. Raises SpaceError."""
    host = job.host
    if host is None:
        return "No system to adapt."
    config = read_config(host)
    facts = job.request.point.body.system.network
    netconfig.add_facts(config, ((a.interface, a.mac, a.addresses, a.dhcp) for a in facts))
    old = old_nics(config)
    plan = map_nics(old, job.request.machine.nics)

    libraries = (path for folder in _SYSTEMD_LIBRARIES for path in host.glob(f"{folder}/libsystemd-shared-*"))
    links = link_files(plan, systemd_version(libraries))
    for path in list(host.glob(f"{_LINKS}/10-rekindle-*.link")):
        if path.rsplit("/", 1)[-1] not in links:  # of an earlier machine
            host.path(path).unlink()
    for name, text in links.items():
        host.write(f"{_LINKS}/{name}", text)
        host.path(f"{_LINKS}/{name}").chmod(0o644)
    for nic_old, nic in plan.pairs:
        carries = f" and carries {', '.join(nic_old.carries)}" if nic_old.carries else ""
        job.changed(f"The NIC {nic.name} ({nic.mac}) is the host's {nic_old.name} now{carries}.")
    for nic, name in plan.spares:
        job.changed(f"The unused NIC {nic.mac} is named {name}: the host's {nic.name} is another one.")
    _replace_macs(job, host, {o.mac: n.mac.lower() for o, n in plan.pairs if o.mac and o.mac != n.mac.lower()})
    rules = host.read(_RULES)
    if rules is not None and host.write(_RULES, comment_out(rules)):
        job.changed(f"{_RULES} bound names to the old NICs; it has no effect any more.")

    if plan.lost:
        job.warn(
            f"This machine has too few NICs: {', '.join(plan.without)} got none. Will not come up: "
            f"{'; '.join(plan.lost)}."
        )
    elif plan.without:
        job.note(f"No NIC for {', '.join(plan.without)}, which carry no address of their own.")
    if not old:
        return "The host's configuration names no NIC."
    return f"{len(plan.pairs)} of {len(old)} NICs of the host are there."


def read_config(host: HostTree) -> NetConfig:
    """All network configuration of the host, but for what an earlier adaptation wrote."""
    config = NetConfig()
    for pattern, read in _SOURCES:
        for path in host.glob(pattern):
            text = None if "/10-rekindle-" in path else host.read(path)
            if text is not None:
                read(text, config)
    return config


def _replace_macs(job: Job, host: HostTree, macs: dict[str, str]) -> None:
    for pattern, _ in _SOURCES:
        for path in host.glob(pattern) if macs and pattern != _RULES else ():
            text = None if "/10-rekindle-" in path else host.read(path)
            if text is not None and host.write(path, replace_macs(text, macs)):
                job.changed(f"{path} matches the new NIC's MAC now.")
