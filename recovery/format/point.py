"""The recovery point: the signed commit record of one host at one time. Exact bytes: docs/format.md, "Point".

A point has a part in clear (``PointHeader``: what listing, access control and garbage collection need without keys)
and an encrypted part (``PointBody``: the facts of the host).
"""

from __future__ import annotations

import os
import struct
from typing import Literal

import blake3
import msgspec
import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from recovery.errors import IntegrityError
from recovery.format.keys import RepositoryKeys
from recovery.layout import (
    Content,
    Firmware,
    LuksVolume,
    MdArray,
    PartitionTable,
    SystemFacts,
    VirtualMachine,
    VolumeGroup,
    WindowsSystem,
)

#: How consistent a point is: like after a power cut; filesystems frozen; applications told.
Consistency = Literal["crash", "filesystem", "application", "offline"]


class DiskMapRef(msgspec.Struct, frozen=True, kw_only=True):
    """Where the chunk map of a disk is: the object name (hex) of the newest map object of its chain."""

    disk: str
    map: str


class JournalRef(msgspec.Struct, frozen=True, kw_only=True):
    """The newest journal of a disk: its object name (hex, below the point's host) and the length of its head."""

    disk: str
    journal: str
    head: int


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many minutes, hours, days and weeks keep one point each; see ``repository/retention.py``."""

    minutes: int = 0
    hours: int = 0
    days: int = 0
    weeks: int = 0


class PointHeader(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a point in clear. ``created`` is seconds since the epoch (UTC), the capturing host's clock.

    ``id`` is the hex BLAKE3 of the stored file, known only after it was written; ``parent`` is the id of the
    host's previous point or empty. A disk that is in ``journals`` is what its journals make of the keyframe, whose map
    is in ``maps``; a point with journals has version 2, so that older releases refuse it. ``retention`` is what the
    host's agent wishes; whoever prunes decides whether that counts.
    """

    version: int
    repository: str
    host: str
    created: float
    parent: str = ""
    maps: tuple[DiskMapRef, ...] = ()
    journals: tuple[JournalRef, ...] = ()
    retention: Retention | None = None

    def journal(self, disk: str) -> JournalRef | None:
        """The newest journal of a disk; None when its map is all there is of it."""
        return next((ref for ref in self.journals if ref.disk == disk), None)


class PointDisk(msgspec.Struct, frozen=True, kw_only=True):
    """A captured disk. ``name`` is unique within the point (``disk1`` ...) and what plans refer to.

    ``device`` is the device name or file it was captured from, for people only. ``used`` is the logical bytes in
    chunks that are not zero, ``changed`` those that differ from the parent point, ``stored`` what this point
    added to the repository. ``root`` is the hex Merkle root of the disk's content; with journals it is the last one of
    the chain of roots that begins with ``base_root``, the Merkle root of the keyframe's map.
    """

    name: str
    size: int
    sector_size: int
    chunk_size: int
    root: str
    base_root: str = ""
    journals: int = 0
    """How many journals make this disk of its keyframe; 0: its map is all there is of it."""
    device: str = ""
    model: str = ""
    serial: str = ""
    wwn: str = ""
    used: int = 0
    changed: int = 0
    stored: int = 0
    table: PartitionTable = PartitionTable()
    content: Content = Content()
    """What lies on the whole disk when it has no partition table."""


class LivePass(msgspec.Struct, frozen=True, kw_only=True):
    """One pass of the pre-copy: bytes read and seconds it took."""

    bytes: int
    seconds: float


class FrozenFilesystem(msgspec.Struct, frozen=True, kw_only=True):
    """A filesystem of the captured disks and how it was held still: ``frozen`` (FIFREEZE), or ``still``: it cannot be
    frozen (vfat), was synced, and nothing was written to it while the others were frozen. ``milliseconds`` is how
    long programs could not write to it."""

    mount: str
    kind: str
    how: Literal["frozen", "still"]
    milliseconds: float = 0.0


class SuspendedVolume(msgspec.Struct, frozen=True, kw_only=True):
    """A volume that was written to directly (a VM's disk, a thin pool), suspended for so many ``milliseconds``;
    ``name`` is device-mapper's."""

    name: str
    milliseconds: float = 0.0


class LiveFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How a point of a running host came about. ``moment`` is when all was frozen (seconds since the epoch, UTC): the
    time that the content is of. ``tracker`` says how changes were known (``ebpf``, ``tracefs``); ``full_compare``
    is empty, or why all of the disks was read and compared. ``freeze_milliseconds`` is from the first freeze to the
    last thaw; ``remainder`` the bytes read meanwhile. ``attempts`` counts freezes, those given up too."""

    moment: float
    tracker: str
    full_compare: str = ""
    passes: tuple[LivePass, ...] = ()
    filesystems: tuple[FrozenFilesystem, ...] = ()
    volumes: tuple[SuspendedVolume, ...] = ()
    freeze_milliseconds: float = 0.0
    remainder: int = 0
    attempts: int = 1


class PointBody(msgspec.Struct, frozen=True, kw_only=True):
    """The encrypted part of a point."""

    disks: tuple[PointDisk, ...]
    consistency: Consistency
    firmware: Firmware
    secure_boot: bool = False
    system: SystemFacts = SystemFacts()
    volume_groups: tuple[VolumeGroup, ...] = ()
    md_arrays: tuple[MdArray, ...] = ()
    luks_volumes: tuple[LuksVolume, ...] = ()
    vms: tuple[VirtualMachine, ...] = ()
    windows: tuple[WindowsSystem, ...] = ()
    """Every Windows found on the disks; where it is the host itself, ``system`` says so too."""
    note: str = ""
    captured_by: str = ""
    duration: float = 0.0
    live: LiveFigures | None = None
    """Of a point of a running host; None when nothing wrote to the disks."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """A point that was read, decrypted and whose signature was verified."""

    id: str
    header: PointHeader
    body: PointBody

    @property
    def size(self) -> int:
        """Logical bytes of all its disks."""
        return sum(disk.size for disk in self.body.disks)

    def disk(self, name: str) -> PointDisk:
        """The disk of that name. Raises KeyError."""
        return {disk.name: disk for disk in self.body.disks}[name]


class PointSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of points shows. Read without keys it has only the header's facts."""

    id: str
    host: str
    created: float
    parent: str = ""


MAGIC = b"RKPOINT\x01"
#: Points of chunks only, and points with journals.
VERSION, JOURNAL_VERSION = 1, 2
_LENGTH = struct.Struct("<I")
_SIGNATURE_SIZE = 64


def encode_point(keys: RepositoryKeys, header: PointHeader, body: PointBody) -> tuple[str, bytes]:
    """The point's id and the bytes to store.

    magic (8) | length u32 | header JSON | length u32 | nonce (12) | AES-256-GCM(zstd(body JSON)) | Ed25519 signature
    """
    clear = msgspec.json.encode(header)
    start = MAGIC + _LENGTH.pack(len(clear)) + clear
    nonce = os.urandom(12)
    compressed = zstandard.ZstdCompressor(level=9).compress(msgspec.json.encode(body))
    sealed = nonce + AESGCM(keys.point_key).encrypt(nonce, compressed, start)
    signed = start + _LENGTH.pack(len(sealed)) + sealed
    data = signed + keys.signing_key.sign(signed)
    return blake3.blake3(data).hexdigest(), data


def decode_header(data: bytes) -> PointHeader:
    """The part in clear, unverified (needs no keys). Raises IntegrityError."""
    return _split(data)[0]


def verify_point(data: bytes, public_key: bytes) -> None:
    """Check the signature with the repository's public key (32 bytes, in repo.json); needs no secret.

    Raises IntegrityError.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(data[-_SIGNATURE_SIZE:], data[:-_SIGNATURE_SIZE])
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError(
            "The signature of the recovery point is wrong: it was altered or belongs to another repository.",
            hint="Choose another point; 'rekindle repo check' tells what else is damaged.",
        ) from error


def decode_point(keys: RepositoryKeys, data: bytes) -> Point:
    """Verify the signature, decrypt and decode. Raises IntegrityError."""
    header, start, sealed = _split(data)
    verify_point(data, keys.public_key)
    if header.repository != keys.repository_id:
        raise IntegrityError("The recovery point belongs to another repository.")
    try:
        plain = zstandard.decompress(AESGCM(keys.point_key).decrypt(sealed[:12], sealed[12:], start))
        body = msgspec.json.decode(plain, type=PointBody)
    except (InvalidTag, zstandard.ZstdError, msgspec.MsgspecError, ValueError) as error:
        raise IntegrityError(f"The recovery point does not decode: {error}.") from error
    return Point(id=blake3.blake3(data).hexdigest(), header=header, body=body)


def _split(data: bytes) -> tuple[PointHeader, bytes, bytes]:
    try:
        if data[:8] != MAGIC:
            raise IntegrityError("This is not a recovery point.")
        end = 12 + _LENGTH.unpack_from(data, 8)[0]
        header = msgspec.json.decode(data[12:end], type=PointHeader)
        sealed_length = _LENGTH.unpack_from(data, end)[0]
    except (struct.error, msgspec.MsgspecError, ValueError) as error:
        raise IntegrityError(f"The recovery point is damaged: {error}.") from error
    if header.version != (JOURNAL_VERSION if header.journals else VERSION):
        raise IntegrityError(
            f"The recovery point has version {header.version}.", hint="A newer release of Rekindle may read it."
        )
    if end + 4 + sealed_length + _SIGNATURE_SIZE != len(data):
        raise IntegrityError("The recovery point is cut short.")
    return header, data[:end], data[end + 4 : end + 4 + sealed_length]
