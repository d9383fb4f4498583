"""A VM of the restored host that is not to start by itself: its link, and the list of those that ran."""

from __future__ import annotations

from recovery.adapt.host import KEPT, HostTree

_FOLDER = "/etc/libvirt/qemu/autostart"
#: What ``libvirt-guests`` shut down with the host, and starts again with it, whatever their autostart setting is.
_RAN = "/var/lib/libvirt/libvirt-guests"


def keep_off(host: HostTree, name: str, uuid: str) -> bool:
    """Put its autostart link aside and take it out of the list. False when it would not start by itself, or when it
    was put aside before: then a person has seen to it since. Raises OSError, SpaceError, RekindleError."""
    folder = host.path(_FOLDER)
    # Not through the link: it is the definition itself that it leads to.
    link, aside = folder / f"{name}.xml", folder / f"{name}.xml{KEPT}"
    if aside.is_symlink():
        return False
    done = False
    if link.is_symlink():
        link.rename(aside)
        done = True
    text = host.read(_RAN)
    if text is not None and uuid and uuid in text:
        lines = [" ".join(word for word in line.split() if word != uuid) for line in text.splitlines()]
        host.write(_RAN, "".join(f"{line}\n" for line in lines))
        done = True
    return done
