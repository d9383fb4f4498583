"""The restored host, asked over its serial line and over the network: does everything live that lived before?"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import socket
import time

from tests.e2e.lab.host_image import dataset, recipe
from tests.e2e.lab.qemu import LabError, Machine
from tests.e2e.lab.storyboard.stage import Stage

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\r")


class Shell:
    """A root shell on the serial line."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def log_in(self, timeout: float) -> None:
        """Wait for the login prompt and log in. Raises LabError."""
        machine = self.machine
        end = machine.wait_for_serial(rf"{recipe.HOST_NAME} login: ", timeout)
        machine.serial_send("root\n")
        end = machine.wait_for_serial(r"Password: ", timeout / 4, since=end)
        machine.serial_send(f"{recipe.ROOT_PASSWORD}\n")
        machine.wait_for_serial(rf"root@{recipe.HOST_NAME}", timeout / 2, since=end)
        # No colours, no line editor, and no kernel messages between our lines.
        self.run("dmesg -n 1; bind 'set enable-bracketed-paste off'; stty -echo; TERM=dumb; PS1=", timeout / 2)

    def run(self, command: str, timeout: float) -> tuple[int, str]:
        """Exit code and output of a command. Raises LabError when it does not end."""
        mark = secrets.token_hex(4)
        start = len(self.machine.serial_text())
        # The mark is written in two halves, so that its echo is not taken for the answer.
        self.machine.serial_send(f"echo '{mark[:4]}''{mark[4:]}'; {command}; echo \" $? {mark[:4]}\"'{mark[4:]}'\n")
        end = self.machine.wait_for_serial(rf" \d+ {mark}", timeout, since=start)
        text = self.machine.serial_text()[start:end]
        body = text.split(mark, 1)[1] if text.count(mark) > 1 else text
        code = re.search(rf" (\d+) {mark}$", text)
        output = _ANSI.sub("", body.rsplit(f" {mark}", 1)[0]).strip()
        return int(code.group(1)) if code else -1, output.rsplit(" ", 1)[0].strip() if " " in output else ""


def check_host(stage: Stage, machine: Machine, ssh_port: int, state: str, patience: float) -> None:
    """Every check of the restored host, in the report; none of them ends the others."""
    report = stage.report
    shell = Shell(machine)
    try:
        shell.log_in(120 * patience)
        _note(stage, "login", "root logs in on the console", True)
    except LabError as error:
        _note(stage, "login", "root logs in on the console", False, str(error))
        return
    machine.screenshot(stage.folder / "screens" / "restored-host.png")
    for check in (_boot, _network, _data, _storage):
        try:
            check(stage, shell, ssh_port, state, patience)
        except LabError as error:
            _note(
                stage, check.__name__.strip("_"), f"the host answers ({check.__name__.strip('_')})", False, str(error)
            )
    for name in recipe.VIRTUAL_MACHINES:
        _virtual_machine(stage, shell, name, state, patience)
    if not all(check.held for check in report.checks):
        _keep_traces(stage, shell, 60 * patience)


def _keep_traces(stage: Stage, shell: Shell, timeout: float) -> None:
    """What a person would look at next, kept in the folder."""
    commands = [
        "journalctl -b -p warning --no-pager | tail -n 60",
        "lsblk -f",
        "ip addr",
        "cat /etc/network/interfaces",
    ]
    commands += [f"tail -n 5 /var/log/libvirt/qemu/{name}.log" for name in recipe.VIRTUAL_MACHINES]
    with contextlib.suppress(LabError), (stage.folder / "host-trouble.txt").open("w") as file:
        for command in commands:
            file.write(f"# {command}\n{shell.run(command, timeout)[1]}\n\n")


def _note(stage: Stage, name: str, what: str, held: bool, detail: str = "") -> None:
    stage.verdict(what, stage.report.check(name, what, held, detail))


def _boot(stage: Stage, shell: Shell, ssh_port: int, state: str, patience: float) -> None:
    _, root = shell.run("findmnt -no SOURCE,UUID /", 30 * patience)
    held = recipe.ROOT.uuid in root and "nvme" in root
    _note(stage, "root", "the root filesystem is the host's own, on the new NVMe disk", held, root)
    code, failed = shell.run("systemctl list-units --failed --plain --no-legend --no-pager", 30 * patience)
    _note(stage, "units", "no service failed to start", code == 0 and not failed, failed)


def _network(stage: Stage, shell: Shell, ssh_port: int, state: str, patience: float) -> None:
    _, addresses = shell.run("ip -br -4 addr show br0", 30 * patience)
    _note(stage, "address", f"the bridge has the address {recipe.ADDRESS}", recipe.ADDRESS in addresses, addresses)
    ports = "for p in /sys/class/net/br0/brif/*; do basename $(readlink /sys/class/net/${p##*/}/device/driver); done"
    _, drivers = shell.run(f"{ports} 2>/dev/null", 30 * patience)
    _note(stage, "nic", "the new network card (e1000e) is the bridge's port", "e1000e" in drivers, drivers)
    banner = _ssh_banner(ssh_port, 60 * patience)
    _note(stage, "ssh", "its SSH server answers on that address from outside", banner.startswith("SSH-2.0"), banner)


def _ssh_banner(port: int, timeout: float) -> str:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), 10) as connection:
                connection.settimeout(10)
                if banner := connection.recv(64):
                    return banner.decode(errors="replace").strip()
        except OSError:
            pass
        time.sleep(1)
    return "no answer"


def _data(stage: Stage, shell: Shell, ssh_port: int, state: str, patience: float) -> None:
    sums = hashlib.sha256(dataset.sums(state).encode()).hexdigest()
    folder = f"/{dataset.FOLDER}"
    _, found = shell.run(f"sha256sum < {folder}/{dataset.SUMS}", 30 * patience)
    _note(stage, "point", f"the data set is that of the {state} point", sums in found, found)
    code, output = shell.run(f"cd {folder} && sha256sum -c --strict --quiet {dataset.SUMS}", 60 * patience)
    _note(stage, "checksums", "every file has the checksum it had", code == 0, output)
    _, count = shell.run(f"ls -A {folder} | wc -l", 30 * patience)
    expected = len(dataset.files(state)) + 1
    _note(stage, "files", f"there are {expected} files, none more and none less", count == str(expected), count)


def _storage(stage: Stage, shell: Shell, ssh_port: int, state: str, patience: float) -> None:
    code, output = shell.run(
        "vgs --noheadings --nosuffix --units m -o vg_size,pv_count,vg_missing_pv_count vg0", 30 * patience
    )
    words = output.split()
    grown = bool(words) and float(words[0]) > recipe.LVM.size / 2**20 + 3000
    _note(stage, "grown", "the volume group has grown onto the larger disk", code == 0 and grown, output)


def _virtual_machine(stage: Stage, shell: Shell, name: str, state: str, patience: float) -> None:
    what = f"the VM {name} runs and says on its own console that it is up, state {state}"
    console = recipe.console_log(name)
    said = ""
    try:
        # A kernel that boots under two emulators takes minutes. The host waits for its word itself: each question of
        # ours would cost the VMs seconds of the processor that they share. Before libvirt has started the VM, the file
        # is the last one of the old host.
        up = f"[ -e /run/libvirt/qemu/{name}.pid ] && grep -qs '^{name} is up' {console}"
        wait = f"end=$((SECONDS + 30)); until {up}; do [ $SECONDS -lt $end ] || break; sleep 2; done; {up}"
        deadline = time.monotonic() + 300 * patience
        while shell.run(wait, 60 * patience)[0] != 0 and time.monotonic() < deadline:
            stage.say(f"{name}: nothing yet")
        _, said = shell.run(f"virsh domstate {name}; tail -n 2 {console}", 60 * patience)
    except LabError as error:
        said = str(error)
    _note(stage, f"vm-{name}", what, f"{name} is up, state {state}," in said and said.startswith("running"), said)
