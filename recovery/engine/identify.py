"""Who answers at an address, before any secret is sent."""

from __future__ import annotations

import msgspec

from recovery.engine.api import Medium, ServerIdentity
from recovery.repository import tls


def trust_of(medium: Medium, fingerprint: str = "") -> tls.Trust:
    """A fingerprint that the operator confirmed counts; else what the medium carries; else the system's CAs."""
    if fingerprint:
        return tls.Trust(fingerprint=fingerprint)
    return tls.Trust(fingerprint=medium.ca_fingerprint, ca_pem=medium.ca_pem)


def identify(url: str, medium: Medium) -> ServerIdentity:
    """Ask for the certificate only. Raises UnreachableError, UsageError."""
    return msgspec.convert(tls.identify(url, trust_of(medium)), ServerIdentity, from_attributes=True)
