"""How many examples a property is tried with."""

from __future__ import annotations

import hypothesis

#: In the quick run (``scripts/test --fast``, profile ``few``): a glance at what the whole run looks at with 100.
FEW = 15


def examples(most: int) -> int:
    """``most``, where one example is dear, and in the quick run no more than all others have: a number that a test
    names itself overrules the profile of the run."""
    return min(most, FEW) if hypothesis.settings.get_current_profile_name() == "few" else most
