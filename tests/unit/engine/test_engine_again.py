"""The command that goes on with an interrupted restore: complete, quoted, and understood by the command line."""

from __future__ import annotations

import shlex
from pathlib import Path

from recovery.cli.restore import restore
from recovery.engine.again import command, with_access
from recovery.plan.model import Choices


def test_everything_that_was_chosen_is_in_it() -> None:
    choices = Choices(
        host="hv1", point="ab" * 32, targets={"disk2": "wwn:0x5000", "disk1": "/srv/my images/a.raw"}, adapt=False,
        grow=False, grow_to=("/srv/my data", "vg0"), to_gpt=True, verify=True, skip_damaged=True,
    )  # fmt: skip
    text = command(choices, ["https://backup:8443", "/mnt/usb copy"])
    text = with_access(
        text, {"user": "ann", "password_file": Path("/root/p w"), "ca": "", "code_file": None, "loops": True}
    )
    words = shlex.split(text)
    assert words[:3] == ["rekindle", "restore", "https://backup:8443"]
    context = restore.make_context("restore", words[2:])
    found = context.params
    assert found["host"] == "hv1" and found["point_id"] == "ab" * 6
    assert found["targets"] == ("disk1=/srv/my images/a.raw", "disk2=wwn:0x5000")
    assert found["copies"] == ("/mnt/usb copy",)
    assert found["adapt"] is False and found["grow"] is False
    assert found["grow_to"] == ("/srv/my data", "vg0") and found["to_gpt"]
    assert found["verify"] and found["skip_damaged"] and found["loops"]
    assert (found["user"], found["password_file"]) == ("ann", Path("/root/p w"))


def test_a_point_that_is_named_by_a_time_stays_so() -> None:
    choices = Choices(host="hv1", point="yesterday 14:03", targets={})
    assert "--point 'yesterday 14:03' " in command(choices, ["/srv/r"])


def test_nothing_is_in_it_that_was_not_chosen() -> None:
    choices = Choices(host="hv1", point="12", targets={"disk1": "serial:X"})
    assert (
        command(choices, ["/srv/r"]) == "rekindle restore /srv/r --host hv1 --point 12 --target disk1=serial:X --adapt"
    )
    assert with_access("x", {"user": "", "loops": False}) == "x"
