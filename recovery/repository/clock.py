"""This machine's clock beside the server's. A dead host's clock is often years off, and says so in no other way."""

from __future__ import annotations

import email.utils
import time
from datetime import UTC, datetime

#: Below, two clocks agree: a Date header has whole seconds, and a login takes some.
TOLERANCE = 60.0
_DAY = 86400.0
_YEAR = 365.2425 * _DAY


def server_time(date: str | None) -> float | None:
    """The Date header of an answer as seconds since the epoch; None when there is none."""
    try:
        parsed = email.utils.parsedate_to_datetime(date or "")
        # "-0000" is UTC from a machine that does not tell its zone (RFC 5322, 3.3); Python gives it without a zone,
        # and would take that for this machine's own.
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


def difference(seconds: float) -> str:
    """How far this machine's clock is from the server's, for people; ``seconds`` is what it must be put forward."""
    size = abs(seconds)
    if size < _DAY:
        amount = f"{size / 60:.0f} minutes" if size < 2 * 3600 else f"{size / 3600:.0f} hours"
    else:
        amount = f"{size / _DAY:.0f} days" if size < _YEAR else f"{size / _YEAR:.1f} years"
    return f"{amount} {'behind' if seconds > 0 else 'ahead of'} the server's"


def why_not_valid(here: float, there: float | None) -> tuple[str, str]:
    """What to say, and what to do, about a certificate that is out of its time by this machine's clock. Pure.

    ``here`` and ``there`` are this machine's time and the server's, seconds since the epoch.
    """
    if there is None:
        return (
            f"This machine's clock says {utc(here)}.",
            "Compare the clocks of this machine and of the server ('date').",
        )
    if abs(there - here) < _DAY:
        return (
            f"This machine's clock is right ({utc(here)}, as the server's): the certificate is out of date.",
            "Restart 'rekindle serve': it renews its certificate. Or give the fingerprint that it prints.",
        )
    return (
        f"This machine's clock says {utc(here)}, the server's {utc(there)}: it is {difference(there - here)}.",
        f"Set it: date -u -s '{utc(there).removesuffix(' UTC')}'. Or give the fingerprint that 'rekindle serve' "
        "prints (--ca): with it the time does not matter.",
    )


def lag(date: str | None) -> float:
    """Seconds that this machine's clock is behind the server's (negative: ahead), by the Date header of an answer
    that came just now; 0 when they agree or the server does not say."""
    there = server_time(date)
    ahead = 0.0 if there is None else there - time.time()
    return ahead if abs(ahead) > TOLERANCE else 0.0


def utc(seconds: float) -> str:
    """Seconds since the epoch as ``2026-09-21 14:13:20 UTC``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
