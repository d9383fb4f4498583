"""The keys of a repository: one master key, keys derived from it, and the two ways in which it is kept.

The master key (32 random bytes) is stored only wrapped: by a passphrase (Argon2id) and by a printable recovery key
of 160 random bits. Exact bytes: docs/format.md, "Keys".
"""

from __future__ import annotations

import base64
import os
from typing import Literal

import blake3
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from recovery.errors import AccessError, IntegrityError

MASTER_SIZE = 32
#: RFC 9106, section 4, second recommended option (t = 3, 64 MiB), with 4 lanes; about 0.2 s on one core.
ARGON2_MEMORY_KIB = 64 * 1024
ARGON2_ITERATIONS = 3
ARGON2_LANES = 4
#: What a key file may ask for: the machine that restores may be small.
MAX_MEMORY_KIB = 1024 * 1024
#: 20 bytes are 32 base32 characters: nine groups of four with the check group, typed at a console in a minute.
RECOVERY_KEY_BYTES = 20
_CHECK_CHARACTERS = 4


class KeyFile(msgspec.Struct, frozen=True, kw_only=True):
    """``keys/<id>.json``: the master key wrapped for one way in. Byte strings are hex."""

    id: str
    kind: Literal["passphrase", "recovery-key"]
    version: int = 1
    salt: str
    nonce: str
    wrapped: str
    memory_kib: int = ARGON2_MEMORY_KIB
    iterations: int = ARGON2_ITERATIONS
    lanes: int = ARGON2_LANES


class RepositoryKeys:
    """All keys of one repository, derived from its master key by HKDF-SHA256 with the repository id as salt."""

    def __init__(self, master: bytes, repository_id: str) -> None:
        self.repository_id = repository_id

        def derive(purpose: str) -> bytes:
            info = b"rekindle 1 " + purpose.encode()
            return HKDF(hashes.SHA256(), 32, repository_id.encode(), info).derive(master)

        self.chunk_id_key = derive("chunk id")
        self.frame_key = derive("frame")
        self.map_key = derive("map")
        self.journal_key = derive("journal")
        self.journal_id_key = derive("journal id")
        self.point_key = derive("point")
        self.signing_key = Ed25519PrivateKey.from_private_bytes(derive("signature"))
        self.public_key = self.signing_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def new_master_key() -> bytes:
    """32 random bytes."""
    return os.urandom(MASTER_SIZE)


def wrap_with_passphrase(master: bytes, passphrase: str) -> KeyFile:
    """Wrap the master key by a passphrase (Argon2id, then AES-256-GCM)."""
    salt = os.urandom(16)
    memory_kib, iterations, lanes = ARGON2_MEMORY_KIB, ARGON2_ITERATIONS, ARGON2_LANES
    key = _passphrase_key(passphrase, salt, memory_kib, iterations, lanes)
    wrapped = _wrap(master, key, salt, "passphrase")
    return msgspec.structs.replace(wrapped, memory_kib=memory_kib, iterations=iterations, lanes=lanes)


def wrap_with_recovery_key(master: bytes) -> tuple[KeyFile, str]:
    """Wrap the master key by a new random recovery key; returns it in its printable form too."""
    secret = os.urandom(RECOVERY_KEY_BYTES)
    salt = os.urandom(16)
    return _wrap(master, _recovery_key(secret, salt), salt, "recovery-key"), format_recovery_key(secret)


def unwrap(key_file: KeyFile, secret: str) -> bytes:
    """The master key. ``secret`` is the passphrase or the printable recovery key. Raises AccessError when wrong."""
    salt, nonce = _unhex(key_file.salt), _unhex(key_file.nonce)
    if not (8 <= len(salt) <= 64 and len(nonce) == 12):
        raise IntegrityError(f"The key file {key_file.id} has an impossible salt or nonce.")
    if key_file.kind == "passphrase":
        # A damaged or forged key file must not make us allocate all memory.
        lanes, memory = key_file.lanes, key_file.memory_kib
        if not (1 <= lanes <= 64 and 8 * lanes <= memory <= MAX_MEMORY_KIB and 1 <= key_file.iterations <= 64):
            raise IntegrityError(f"The key file {key_file.id} asks for impossible Argon2id parameters.")
        key = _passphrase_key(secret, salt, key_file.memory_kib, key_file.iterations, key_file.lanes)
    else:
        key = _recovery_key(parse_recovery_key(secret), salt)
    try:
        return AESGCM(key).decrypt(nonce, _unhex(key_file.wrapped), _associated(key_file.kind))
    except InvalidTag as error:
        what = "passphrase" if key_file.kind == "passphrase" else "recovery key"
        raise AccessError(
            f"The {what} does not open this repository.",
            hint="Check the keyboard layout and Caps Lock; the printable recovery key opens it as well.",
        ) from error


def format_recovery_key(secret: bytes) -> str:
    """The printable form: base32 in groups of four, the last group a check sum of the others."""
    letters = base64.b32encode(secret).decode() + _check_group(secret)
    return "-".join(letters[i : i + 4] for i in range(0, len(letters), 4))


def parse_recovery_key(text: str) -> bytes:
    """The 20 bytes of a typed recovery key; case, blanks and dashes do not matter, 0/1/8 are read as O/I/B.

    Raises AccessError when it is too short, too long or mistyped.
    """
    letters = "".join(text.split()).replace("-", "").upper().translate(str.maketrans("018", "OIB"))
    expected = RECOVERY_KEY_BYTES * 8 // 5 + _CHECK_CHARACTERS
    hint = f"It is {expected} letters and digits in groups of four, as printed when the repository was made."
    if len(letters) != expected:
        raise AccessError(f"The recovery key has {len(letters)} characters instead of {expected}.", hint=hint)
    try:
        secret = base64.b32decode(letters[:-_CHECK_CHARACTERS])
    except ValueError as error:
        raise AccessError("The recovery key has a character that cannot occur in it.", hint=hint) from error
    if _check_group(secret) != letters[-_CHECK_CHARACTERS:]:
        raise AccessError("The recovery key is mistyped: its last group does not match the others.", hint=hint)
    return secret


def looks_like_recovery_key(text: str) -> bool:
    """Whether what was typed is a well-formed recovery key (so that one input field serves both)."""
    try:
        parse_recovery_key(text)
    except AccessError:
        return False
    return True


def _check_group(secret: bytes) -> str:
    return base64.b32encode(blake3.blake3(b"rekindle recovery key" + secret).digest()[:5]).decode()[:_CHECK_CHARACTERS]


def _passphrase_key(passphrase: str, salt: bytes, memory_kib: int, iterations: int, lanes: int) -> bytes:
    return Argon2id(salt=salt, length=32, iterations=iterations, lanes=lanes, memory_cost=memory_kib).derive(
        passphrase.encode()
    )


def _recovery_key(secret: bytes, salt: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, b"rekindle 1 recovery key").derive(secret)


def _associated(kind: str) -> bytes:
    return b"rekindle 1 wrapped master key, " + kind.encode()


def _wrap(master: bytes, key: bytes, salt: bytes, kind: Literal["passphrase", "recovery-key"]) -> KeyFile:
    nonce = os.urandom(12)
    wrapped = AESGCM(key).encrypt(nonce, master, _associated(kind))
    return KeyFile(id=os.urandom(8).hex(), kind=kind, salt=salt.hex(), nonce=nonce.hex(), wrapped=wrapped.hex())


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise IntegrityError("A key file of the repository is damaged.") from error
