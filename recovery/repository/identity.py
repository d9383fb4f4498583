"""What a repository is and how it is opened: ``repo.json`` and the wrapped keys. Exact bytes: docs/format.md."""

from __future__ import annotations

import msgspec
from cryptography.exceptions import InvalidSignature

from recovery.errors import AccessError, IntegrityError, NotFoundError
from recovery.format.chunk import DEFAULT_CHUNK_SIZE
from recovery.format.keys import KeyFile, RepositoryKeys, looks_like_recovery_key, unwrap
from recovery.format.names import REPOSITORY, digest
from recovery.repository.protocols import ObjectStore

_FROM_COPY = "Copy it from another copy of the repository: it never changes, so any copy's will do."


class RepositoryFile(msgspec.Struct, frozen=True, kw_only=True):
    """``repo.json``: what a repository is, signed by its own key. ``created`` is seconds since the epoch."""

    format: str = "rekindle repository"
    version: int = 1
    id: str
    created: float
    chunk_size: int = DEFAULT_CHUNK_SIZE
    hash: str = "keyed-blake3-256"
    compression: str = "zstd"
    cipher: str = "aes-256-gcm"
    signature_algorithm: str = "ed25519"
    public_key: str = ""
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        return msgspec.json.encode(msgspec.structs.replace(self, signature=""))


def read_repository_file(store: ObjectStore) -> RepositoryFile:
    """``repo.json``, not yet verified. Raises NotFoundError, IntegrityError."""
    try:
        data = store.get(REPOSITORY)
    except NotFoundError as error:
        raise NotFoundError(
            f"There is no Rekindle repository in {getattr(store, 'location', 'this place')}.",
            hint="Check the path or address; 'rekindle repo init' makes one.",
        ) from error
    try:
        file = msgspec.json.decode(data, type=RepositoryFile)
    except (msgspec.MsgspecError, ValueError) as error:
        raise IntegrityError(f"{REPOSITORY} is damaged: {error}.", hint=_FROM_COPY) from error
    if file.version != 1:
        raise IntegrityError(f"The repository has version {file.version}.", hint="A newer release may open it.")
    if msgspec.json.encode(file) != data:
        raise IntegrityError(f"{REPOSITORY} is damaged: it was altered after it was written.", hint=_FROM_COPY)
    return file


def verify_repository_file(file: RepositoryFile, keys: RepositoryKeys) -> None:
    """Check the signature with our own key. Raises IntegrityError."""
    try:
        signature = bytes.fromhex(file.signature)
        if signature.hex() != file.signature:
            raise ValueError("not the digits that were written")
        keys.signing_key.public_key().verify(signature, file.signed_bytes())
    except (InvalidSignature, ValueError) as error:
        raise IntegrityError(
            f"The signature of {REPOSITORY} is wrong: it was altered or replaced.", hint=_FROM_COPY
        ) from error


def encode_key_file(key_file: KeyFile) -> bytes:
    """The bytes of ``keys/<id>.json``: the JSON, and behind it the hex BLAKE3 of the JSON on a line of its own."""
    encoded = msgspec.json.encode(key_file)
    return encoded + b"\n" + digest(encoded).encode() + b"\n"


def decode_key_file(data: bytes) -> KeyFile:
    """Read ``keys/<id>.json``. Raises IntegrityError."""
    encoded, _, check = data.partition(b"\n")
    if check != digest(encoded).encode() + b"\n":
        raise IntegrityError("A key file (keys/) is damaged: its check sum is wrong.", hint=_FROM_COPY)
    try:
        return msgspec.json.decode(encoded, type=KeyFile)
    except (msgspec.MsgspecError, ValueError) as error:
        raise IntegrityError(f"A key file (keys/) is damaged: {error}.", hint=_FROM_COPY) from error


def unwrap_master_key(store: ObjectStore, secret: str) -> bytes:
    """The master key, by the passphrase or the printable recovery key. Raises AccessError, IntegrityError."""
    kind = "recovery-key" if looks_like_recovery_key(secret) else "passphrase"
    problem: Exception | None = None
    for info in store.list("keys/"):
        try:
            key_file = decode_key_file(store.get(info.name))
            if key_file.kind == kind:
                return unwrap(key_file, secret)
        except (AccessError, IntegrityError) as error:
            problem = error if problem is None or isinstance(error, AccessError) else problem
    if problem is not None:
        raise problem
    raise AccessError(
        f"The repository has no key that a {kind.replace('-', ' ')} opens.",
        hint="Use the other secret: the passphrase, or the recovery key.",
    )
