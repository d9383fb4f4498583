"""Unattended answers: strict, and no secret in what is said about them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import UsageError
from recovery.plan.answers import (
    Answers,
    check_some,
    own_words,
    parse_answers,
    parse_point,
    secret_words,
    split_words,
    wanted,
)

GOOD = """
unattended = true
server = "https://backup.example.org:8443"
code = "ABCD-EFGH-JKMN"
secret = "correct horse battery staple"
host = "pve1"
after = "reboot"
[disks]
disk1 = "serial:S45PNA0M501234"
disk2 = "size:>=400GB,blank"
"""


def changed(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


def test_a_good_file() -> None:
    answers = parse_answers(GOOD)
    assert answers.host == "pve1"
    assert answers.disks == {"disk1": "serial:S45PNA0M501234", "disk2": "size:>=400GB,blank"}
    assert (answers.adapt, answers.grow, answers.verify, answers.countdown) == (True, True, False, 60)
    assert wanted(GOOD, "")


def test_where_growth_goes() -> None:
    answers = parse_answers(GOOD, "rekindle.grow_to=/var,vg0/data rekindle.to_gpt")
    assert answers.grow_to == ("/var", "vg0/data") and answers.to_gpt
    assert parse_answers(changed("unattended = true", 'grow_to = ["none"]')).grow_to == ("none",)
    for words in ("rekindle.grow_to=none,/var", "rekindle.grow_to=/var rekindle.grow=no"):
        with pytest.raises(UsageError, match="grow_to: Growth is to go somewhere and nowhere"):
            parse_answers(GOOD, words)


def test_the_command_line_says_the_same_things() -> None:
    line = (
        "BOOT_IMAGE=/vmlinuz quiet rekindle.unattended rekindle.host=pve1 rekindle.code=ABCD rekindle.verify "
        'rekindle.grow=no rekindle.secret="two words" rekindle.disks.disk1=serial:X1 rekindle.skip=disk2,disk3 '
        "rekindle.countdown=30 rekindle.network.interface=eno1 rekindle.network.vlan=7 rekindle.after=poweroff "
        "rekindle.server=https://b:1 rekindle.network.bond=eno2,eno3 rekindle.ssh console=ttyS0"
    )
    answers = parse_answers("", line)
    assert (answers.verify, answers.grow, answers.countdown, answers.after) == (True, False, 30, "poweroff")
    assert answers.secret == "two words"
    assert answers.skip == ("disk2", "disk3")
    assert answers.network is not None
    assert (answers.network.vlan, answers.network.bond, answers.network.dhcp) == (7, ("eno2", "eno3"), True)
    assert secret_words(line) == ["code", "secret"]
    assert secret_words("rekindle.luks_secret=x") == ["luks_secret"]
    assert parse_answers(GOOD, 'rekindle.luks_secret="of the disks"').luks_secret == "of the disks"
    assert wanted("", line)
    assert own_words(line).startswith("rekindle.unattended rekindle.host=pve1")
    assert "quiet" not in own_words(line)


def test_file_and_command_line_together() -> None:
    assert parse_answers(GOOD, "rekindle.verify rekindle.host=pve1").verify
    with pytest.raises(UsageError, match="'host' is answered twice"):
        parse_answers(GOOD, "rekindle.host=pve2")
    with pytest.raises(UsageError, match=r"'disks\.disk1' is answered twice"):
        parse_answers(GOOD, "rekindle.disks.disk1=same")
    with pytest.raises(UsageError, match="'point' is answered twice"):
        parse_answers("", "rekindle.point=latest rekindle.point=2026-11-20T03:00Z")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('host = "pve1"', 'hosts = "pve1"', "unknown field `hosts`"),
        ('host = "pve1"', "", "'host' is missing"),
        ('secret = "correct horse battery staple"', "", "'secret'"),
        ('after = "reboot"', 'after = "halt"', "after"),
        ('after = "reboot"', 'countdown = "60"', "countdown"),
        ('after = "reboot"', "countdown = 0", "between 5 and 3600"),
        ('code = "ABCD-EFGH-JKMN"', "", "either 'code'"),
        ('code = "ABCD-EFGH-JKMN"', 'code = "A"\nuser = "u"\npassword = "p"', "either 'code'"),
        ('code = "ABCD-EFGH-JKMN"', 'user = "u"', "belong together"),
        ('code = "ABCD-EFGH-JKMN"', 'user = "u"\npassword = "p"', "one-time 'code'"),
        ('server = "https://backup.example.org:8443"', 'server = "x"\nrepository = "0123abcd"', "needs no login"),
        ('server = "https://backup.example.org:8443"', 'repository = "usb"', "hexadecimal"),
        ('disk1 = "serial:S45PNA0M501234"', 'disk1 = "/dev/sda"', "not a condition"),
        ('disk1 = "serial:S45PNA0M501234"', 'disk1 = "blank"', "says too little"),
        ('disk1 = "serial:S45PNA0M501234"', 'disk1 = "size:10GB,size:>=5GB"', "twice"),
        ('host = "pve1"', 'host = "pve1"\nskip = ["disk1"]', "both skipped and restored"),
        ('host = "pve1"', 'host = "pve1"\npoint = "2026-11-20T03:00"', "without its zone"),
        ('host = "pve1"', 'host = "pve1"\npoint = "yesterday"', "must be latest"),
        ('host = "pve1"', 'host = "pve1"\nnetwork = {interface = "eno1", mtu = 9000}', "unknown field `mtu`"),
        ("[disks]", "[disks", "not TOML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(old: str, new: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_answers(changed(old, new))
    assert said in caught.value.message
    assert "correct horse" not in caught.value.message
    assert "EFGH" not in caught.value.message


@pytest.mark.parametrize(
    "line", ["rekindle.hots=x", "rekindle.verify=maybe", "rekindle.host", "rekindle.countdown=1m",
             "rekindle.network=eno1", "rekindle.network.mtu=1"],
)  # fmt: skip
def test_words_that_are_no_answers(line: str) -> None:
    with pytest.raises(UsageError, match="rekindle."):
        parse_answers(GOOD, line)


def test_a_part_of_the_answers_may_stand_in_a_profile() -> None:
    check_some({"host": "pve1", "disks": {"disk1": "same"}, "after": "poweroff"})
    with pytest.raises(UsageError, match="not a condition"):
        check_some({"disks": {"disk1": "/dev/sda"}})
    with pytest.raises(UsageError, match="unknown field"):
        check_some({"hots": "pve1"})


def test_when_it_is_asked_for() -> None:
    quiet = changed("unattended = true", "")
    assert not wanted(quiet, "quiet splash")
    assert wanted(quiet, "rekindle.unattended")
    assert wanted(changed("unattended = true", "unattended = false"), "rekindle.unattended=1")
    assert parse_answers(changed("unattended = true", "unattended = false"), "rekindle.unattended").host == "pve1"
    assert not wanted(GOOD, "rekindle.unattended=no")
    assert not wanted("", "rekindle.host=pve1")
    assert wanted("[broken", "")  # somebody must be told


def test_points() -> None:
    assert parse_point("latest") == "latest"
    assert parse_point("0123abcd") == "0123abcd"
    assert parse_point("2026-11-20T03:00Z") == parse_point("2026-11-20T04:00+01:00") == 1795143600.0
    assert parse_answers(changed('host = "pve1"', 'host = "pve1"\npoint = 2026-11-20T03:00:00Z')).point.startswith(
        "2026"
    )


@given(st.dictionaries(st.from_regex(r"[a-z_.]{1,12}", fullmatch=True), st.text(max_size=8), max_size=5))
def test_nothing_but_a_usage_error_comes_out(words: dict[str, str]) -> None:
    line = " ".join(f'rekindle.{name}="{value}"' for name, value in words.items())
    try:
        answers = parse_answers(GOOD, line)
    except UsageError:
        return
    assert isinstance(answers, Answers)


@given(st.text(alphabet=st.sampled_from('ab"= .'), max_size=30))
def test_only_our_words_come_out(line: str) -> None:
    assert split_words(f"other {line}") == split_words(line)
    assert split_words(own_words(f"rekindle.x=1 {line}")) == split_words(f"rekindle.x=1 {line}")
