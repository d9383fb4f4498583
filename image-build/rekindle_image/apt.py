"""Where Debian comes from: the machine's own apt configuration, read and turned into sources for the medium. Pure but
for the two readers at the end.

No mirror's name is written in this program: a machine that installs Debian packages knows one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recovery.commands import run
from recovery.errors import NotFoundError

#: Has the keys of every supported release; a file of one release's keys would not do for another.
DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
COMPONENTS = "main non-free-firmware"
_RELEASES = {
    "bullseye", "bookworm", "trixie", "forky", "duke", "sid", "unstable", "testing", "stable", "oldstable",
}  # fmt: skip
_HINT = "Say where Debian packages come from: --mirror http://HOST/debian"


@dataclass(frozen=True)
class Source:
    """One entry of apt's sources: the address and suite of a repository, and the key file named for it, if any."""

    uri: str
    suite: str
    signed_by: str = ""


@dataclass(frozen=True)
class Mirrors:
    """Where the medium's packages and its security updates come from."""

    main: Source
    security: Source


def parse_one_line(text: str) -> list[Source]:
    """The ``deb`` lines of a sources.list."""
    found = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)", line.split("#", 1)[0])
        if match:
            key = re.search(r"(?:^|\s)signed-by=(\S+)", match.group(1) or "", re.IGNORECASE)
            found.append(Source(match.group(2).rstrip("/"), match.group(3), key.group(1) if key else ""))
    return found


def parse_deb822(text: str) -> list[Source]:
    """The enabled ``deb`` entries of a .sources file."""
    found = []
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                fields[name] = fields.get(name, "") + "\n" + line.strip()
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().lower()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in (
            "no",
            "false",
            "0",
        ):
            continue
        # A key written into the file itself is the mirror's own; it is no path and is left to the caller's default.
        key = fields.get("signed-by", "")
        key = key if key.startswith("/") else ""
        found += [
            Source(u.rstrip("/"), s, key)
            for u in fields.get("uris", "").split()
            for s in fields.get("suites", "").split()
        ]
    return found


def choose_mirrors(sources: Iterable[Source], mirror: str = "", security_mirror: str = "") -> Mirrors:
    """The Debian mirrors among the machine's sources; ``mirror`` and ``security_mirror`` go before them.

    Raises NotFoundError when the machine has none.
    """
    main = next((s for s in sources if s.suite in _RELEASES), None) if not mirror else Source(mirror, "")
    if main is None:
        raise NotFoundError("This machine's apt configuration names no Debian mirror.", hint=_HINT)
    security = Source(security_mirror, "") if security_mirror else None
    if security is None and not mirror:
        security = next((s for s in sources if s.suite.endswith("-security") and s.suite[:-9] in _RELEASES), None)
    if security is None:
        # Mirrors that carry both keep them side by side.
        if not main.uri.endswith("/debian"):
            raise NotFoundError(
                f"Where the security updates of '{main.uri}' are is not known.",
                hint="Name it: --security-mirror http://HOST/debian-security",
            )
        security = Source(main.uri + "-security", "", main.signed_by)
    return Mirrors(main, security)


def render_sources(mirrors: Mirrors, suite: str) -> str:
    """The deb822 file with release, updates and security updates of ``suite``."""
    stanzas = []
    for source, suites in ((mirrors.main, f"{suite} {suite}-updates"), (mirrors.security, f"{suite}-security")):
        key = source.signed_by
        if not key or Path(key).name.startswith("debian-archive-"):
            key = DEBIAN_KEYRING
        stanzas.append(
            f"Types: deb\nURIs: {source.uri}\nSuites: {suites}\nComponents: {COMPONENTS}\nSigned-By: {key}\n"
        )
    return "\n".join(stanzas)


#: Settings of the machine's apt that reach its mirror: proxies, certificates, time-outs, and whether an archive whose
#: date has passed (a dated snapshot) is taken.
_TRANSPORT = re.compile(r"Acquire::(http|https|Retries|Check-Valid-Until|Check-Date)(::|$)", re.IGNORECASE)


def transport_options(dump: str) -> list[str]:
    """The lines of ``apt-config dump`` that say how to reach a mirror."""
    lines = [line.strip() for line in dump.splitlines()]
    return [line for line in lines if _TRANSPORT.match(line.split(" ", 1)[0]) and not line.endswith(' "";')]


def read_machine_sources(etc: Path = Path("/etc/apt")) -> list[Source]:
    """Every source of this machine, in apt's order."""
    found = []
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    for file in files:
        if file.is_file() and file.suffix in (".list", ".sources"):
            text = file.read_text(errors="replace")
            found += parse_one_line(text) if file.suffix == ".list" else parse_deb822(text)
    return found


def read_transport_options() -> list[str]:
    """How this machine reaches its mirrors."""
    return transport_options(run(["apt-config", "dump"]).stdout)
