"""The engine as its clients see it: the TUI, the CLI and the unattended mode all speak ``EngineApi``.

``recovery.engine.engine.Engine`` does the work in this process; ``recovery.engine.client.EngineClient`` is the same
interface over the unix socket of ``rekindle engine``. Methods block (call them from a worker thread in a TUI) and
raise the errors of ``recovery.errors`` on both sides of the socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol

import msgspec

from recovery.errors import ErrorReport
from recovery.events import Event
from recovery.format.point import Point, PointSummary
from recovery.machine.model import Machine
from recovery.machine.place import Place
from recovery.plan.model import Choices, RestorePlan, Suggestion
from recovery.plan.vm import VmChoices, VmPlan
from recovery.repository.mdns import DiscoveredServer as DiscoveredServer
from recovery.restore.report import DiskReport as DiskReport

#: The default socket of the engine on the medium.
SOCKET = "/run/rekindle/engine.sock"


class Medium(msgspec.Struct, frozen=True, kw_only=True):
    """What the medium carries (``/etc/rekindle/medium.json``): pre-fills, never secrets."""

    server: str = ""
    ca_fingerprint: str = ""
    ca_pem: str = ""
    version: str = ""
    built: str = ""


class ServerIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers at an address, before any secret is sent. Fingerprints are hex SHA-256 of the DER certificate.

    ``trusted`` says that the chain ends in the CA the medium carries (``ca_fingerprint``/``ca_pem``).
    """

    url: str
    fingerprint: str
    ca_fingerprint: str = ""
    subject: str = ""
    valid_until: str = ""
    trusted: bool = False
    reason: str = ""


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach and open a repository. Secrets travel only over the engine's socket (0600) and stay in memory.

    Either ``url`` (https://..., with ``fingerprint`` as confirmed by the operator or empty to rely on the medium's
    CA, and user + password, or a one-time code) or ``path`` (a directory or mounted USB disk). ``secret`` is the
    repository's passphrase or its printable recovery key.
    """

    url: str = ""
    path: str = ""
    fingerprint: str = ""
    user: str = ""
    password: str = ""
    code: str = ""
    secret: str = ""


class RepositoryInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The repository that was opened."""

    id: str
    location: str
    hosts: tuple[str, ...]


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What to set on an interface: DHCP, or a static address in CIDR form; an optional VLAN id on top."""

    interface: str
    dhcp: bool = True
    address: str = ""
    gateway: str = ""
    dns: tuple[str, ...] = ()
    vlan: int | None = None
    bond: tuple[str, ...] = ()
    """Further interfaces that form a bond with ``interface``; address and VLAN are the bond's then."""
    bond_mode: str = "active-backup"


class LocalRepository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository found on a local (USB) disk; ``path`` is where the engine mounted it read-only."""

    id: str
    path: str
    device: str
    size: int


RunPhase = Literal["idle", "running", "finished", "failed", "cancelled"]


UnattendedPhase = Literal["off", "preparing", "countdown", "running", "done", "refused", "stopped", "failed"]


class FoundAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """Answers for an unattended restore as they were found; see ``recovery.plan.answers``. ``text`` may hold secrets.

    ``problems`` are sentences on what could not be read: nothing is started then.
    """

    command_line: str = ""
    """The ``rekindle.*`` words of the kernel's command line, and nothing else of it."""
    text: str = ""
    source: str = ""
    """The device that ``text`` was read from."""
    problems: tuple[str, ...] = ()


class Unattended(msgspec.Struct, frozen=True, kw_only=True):
    """How far the unattended restore is, for every window. ``reasons`` say why it was refused, one each."""

    phase: UnattendedPhase = "off"
    message: str = ""
    reasons: tuple[str, ...] = ()
    first_write: float = 0.0
    """In the phase ``countdown``: when the first write comes, seconds since the epoch."""

    @property
    def ended(self) -> bool:
        """Nothing will happen any more by itself."""
        return self.phase in ("off", "done", "refused", "stopped", "failed")


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended, for the administrator who reads it at the server. No secrets."""

    host: str
    outcome: Literal["finished", "failed", "cancelled", "refused"]
    message: str
    machine: str = ""
    point: str = ""
    seconds: float = 0.0
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class RemoteAccess(msgspec.Struct, frozen=True, kw_only=True):
    """How the console is reached from afar; all empty when nothing listens. Shown on the screen, logged nowhere."""

    ssh: bool = False
    password: str = ""
    """Root's one-time password; empty when only keys may log in."""
    host_key: str = ""
    """The fingerprint that ssh asks about, ``SHA256:...``."""
    keys: int = 0
    """Public keys from the medium's profile that may log in."""
    addresses: tuple[str, ...] = ()
    status: tuple[str, ...] = ()
    """Addresses of the status page, with its code."""


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run is: what a window that opens late needs to draw itself."""

    phase: RunPhase = "idle"
    plan: RestorePlan | None = None
    vm_plan: VmPlan | None = None
    """Instead of ``plan``, when the disks of one VM are restored as files."""
    step: str = ""
    events: int = 0
    """How many events were sent so far; ``events(since=...)`` replays from any of them."""
    error: ErrorReport | None = None
    report: Report | None = None


class VmFileReport(msgspec.Struct, frozen=True, kw_only=True):
    """A disk of a VM as a file: ``size`` bytes, of which ``written`` are not zeros. ``source`` is where it was on its
    host; ``damaged`` are (offset, bytes) that no copy of the repository had: zeros lie there now."""

    target: str
    path: str
    source: str
    format: str
    size: int
    written: int
    seconds: float
    backing: str = ""
    damaged: tuple[tuple[int, int], ...] = ()


class VmReport(msgspec.Struct, frozen=True, kw_only=True):
    """The files of one VM. ``place`` says for people where they lie; with a ``device`` it was mounted for the run only
    and paths begin at its top. ``definition`` is the path of the libvirt XML, empty when the point has none."""

    name: str
    place: str
    files: tuple[VmFileReport, ...] = ()
    definition: str = ""
    device: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The final, honest report of a run. ``changes`` is what adaptation changed, one sentence each.

    A run that did not come to its end leaves ``incomplete`` targets (paths): they have no partition table and no boot
    sector. ``go_on`` is the command that completes it.
    """

    host: str
    point: str
    point_created: float
    started: float
    finished: float
    disks: tuple[DiskReport, ...] = ()
    steps: tuple[tuple[str, float], ...] = ()
    changes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    go_on: str = ""
    log_path: str = ""
    vm: VmReport | None = None
    """What became of the disks of one VM, instead of ``disks``."""

    @property
    def damaged(self) -> bool:
        """A part of it was in no copy of the repository: zeros lie there now."""
        return any(disk.damaged for disk in self.disks) or any(
            file.damaged for file in (self.vm.files if self.vm else ())
        )


class EngineApi(Protocol):
    """Everything a window can ask for."""

    def medium(self) -> Medium: ...

    def machine(self, refresh: bool = False) -> Machine: ...

    def configure_network(self, config: NetworkConfig) -> Machine:
        """Apply and wait for an address; returns the machine with its new addresses. Raises CommandError."""

    def identify(self, url: str) -> ServerIdentity:
        """Ask the server for its certificate only; sends no secret. Raises UnreachableError, UsageError."""

    def discover(self) -> list[DiscoveredServer]:
        """Servers that announce themselves on the local network; takes two seconds. Nothing of it is proven."""

    def local_repositories(self) -> list[LocalRepository]: ...

    def connect(self, access: Access) -> RepositoryInfo:
        """Authenticate, open and unlock. Raises AccessError, UnreachableError, NotFoundError."""

    def add_copy(self, access: Access) -> tuple[str, ...]:
        """Ask another copy of the open repository, too, for what those before it lack or have damaged; returns where
        all copies are. Its ``secret`` is not needed. Raises UsageError when it is another repository or one that is
        asked already, AccessError, UnreachableError, NotFoundError, IntegrityError."""

    def points(self, host: str) -> list[PointSummary]:
        """Newest last."""

    def point(self, host: str, point: str) -> Point: ...

    def suggest(self, host: str, point: str) -> list[Suggestion]: ...

    def luks_secret(self, secret: str) -> int:
        """Remember one more passphrase for the host's encrypted volumes (LUKS), in memory only, for the plans made
        from now on; an empty one forgets them all. Returns how many are remembered."""

    def plan(self, choices: Choices) -> RestorePlan:
        """Plan and check (also what needs asking: packs present, access, memory). Writes nothing."""

    def plan_repair(self, disks: tuple[str, ...], grow: bool = True) -> RestorePlan:
        """Plan to make the host start whose disks (ids or paths) are in this machine; it needs no repository, and
        ``start`` runs it like another plan. Writes nothing."""

    def places(self) -> list[Place]:
        """Filesystems of this machine that the disks of a VM can go to, with free room; each that is not mounted is
        looked into read-only for a moment. Raises CommandError, BusyError while a run goes on."""

    def plan_vm(self, choices: VmChoices) -> VmPlan:
        """Plan and check to restore the disks of one VM as files; ``start`` runs it like another plan, with the VM's
        name typed (key ``plan.vm.VM_NAME``) where files are overwritten. Writes nothing."""

    def start(self, plan_id: str, confirmations: dict[str, str], countdown: int = 0) -> None:
        """Run the plan last made if its id is ``plan_id`` and every target's ``Disk.confirmation`` was typed.

        ``confirmations`` maps a target's ``Disk.id`` to what was typed. The run waits ``countdown`` seconds before it
        touches anything; ``cancel`` in that time leaves everything as it is. Returns at once. Raises
        PlanRefusedError, UnsafeTargetError, BusyError.
        """

    def cancel(self) -> None: ...

    def state(self) -> RunState: ...

    def events(self, since: int = 0) -> Iterator[Event]:
        """Every event from number ``since`` on; waits for new ones; ends after RunFinished."""

    def log(self, lines: int = 200) -> list[str]:
        """The newest lines of the engine's log."""

    def save_log(self, directory: str = "") -> str:
        """Write report, log and what consoles that ended by a bug left below ``directory`` (empty: the restored
        host's /var/log/rekindle, when there is one, else a USB volume). Returns the path."""

    def reboot(self, power_off: bool = False) -> None: ...

    def answers(self) -> FoundAnswers:
        """Look for answers to an unattended restore. Writes nothing."""

    def unattended(self, update: Unattended | None = None) -> Unattended:
        """How far the unattended restore is, after taking in ``update``. What a person has stopped stays stopped:
        who drives it looks at what comes back."""

    def tell_server(self, notice: Notice) -> bool:
        """Leave a notice at the server that the open repository comes from; False when there is none.

        Raises AccessError, UnreachableError.
        """

    def remote_access(self, ssh: bool | None = None, status: bool | None = None) -> RemoteAccess:
        """Turn SSH and the status page on or off (None: leave it), and tell how they are. Raises CommandError."""
