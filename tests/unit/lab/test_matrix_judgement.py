"""What a booted system says is read rightly, and a system that is not whole is never called good."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from recovery.errors import UsageError
from tests.e2e.matrix import catalogue, observe, report, results
from tests.e2e.matrix.observe import Seen
from tests.e2e.matrix.results import Result, Status, Store

SOURCE = catalogue.SOURCES["d13-bridge"]
SAID = """\
root@d13-bridge:~# lab-check\r
lab-begin\r
state running\r
failed some-unit.service\r
mount / /dev/nvme0n1p4 ext4\r
mount /boot/efi /dev/nvme0n1p2 vfat\r
swap /dev/nvme0n1p3 128M\r
address enp0s3 UP\r
address vmbr0 UP 10.0.2.40/24\r
link enp0s3 UP\r
gateway answers\r
kernel 6.12.0-amd64\r
machine 0123456789abcdef0123456789abcdef\r
firmware uefi\r
size 1234567\r
nvram BootCurrent: 0001\r
lab-end"""
GOOD = observe.parse(SAID)


def test_what_a_system_says_is_read() -> None:
    assert GOOD.state == "running"
    assert GOOD.failed == ("some-unit.service",)
    assert GOOD.mounts == {"/": "/dev/nvme0n1p4", "/boot/efi": "/dev/nvme0n1p2"}
    assert GOOD.swaps == ("/dev/nvme0n1p3",)
    assert GOOD.addresses["vmbr0"] == ["UP", "10.0.2.40/24"]
    assert GOOD.gateway
    assert GOOD.firmware == "uefi"
    assert GOOD.root_size == 1234567
    assert observe.parse("nothing of it") == Seen()


def test_a_whole_system_is_good() -> None:
    assert observe.broken(observe.judge(SOURCE, GOOD, GOOD)) == []
    assert observe.broken(observe.again(GOOD, GOOD)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mounts": {"/": "/dev/sda4"}}, "fstab"),
        ({"swaps": ()}, "swap"),
        ({"addresses": {"vmbr0": ["UP"]}}, "vmbr0 is up"),
        ({"addresses": {"vmbr0": ["DOWN", "10.0.2.40/24"]}}, "vmbr0 is up"),
        ({"addresses": {"enp0s3": ["UP", "10.0.2.40/24"]}}, "vmbr0 is up"),
        ({"gateway": False}, "gateway"),
        ({"failed": ("some-unit.service", "networking.service")}, "networking.service"),
        ({"machine_id": "another"}, "machine-id"),
        ({"state": ""}, "login"),
    ],
)
def test_what_is_missing_is_said(change: dict[str, object], said: str) -> None:
    after = msgspec.structs.replace(GOOD, **change)
    wrong = observe.broken(observe.judge(SOURCE, GOOD, after))
    assert len(wrong) == 1
    assert said in wrong[0]


@pytest.mark.parametrize(
    "change",
    [{"mounts": {"/": "/dev/sda4"}}, {"swaps": ()}, {"addresses": {}}, {"failed": ("some-unit.service", "b")}],
)
def test_a_second_boot_that_is_worse_is_said(change: dict[str, object]) -> None:
    assert observe.broken(observe.again(GOOD, msgspec.structs.replace(GOOD, **change)))


def result(status: Status, cell: str = "", **more: object) -> Result:
    name = cell or next(iter(catalogue.cells()))
    found = catalogue.parse_name(name)
    assert found is not None
    facts = results.target_facts(found)
    made = Result(cell=name, source=found.source, target=facts, status=status, code="now", at=1_700_000_000)
    return msgspec.structs.replace(made, **more)


def test_results_accumulate_and_the_newest_counts(tmp_path: Path) -> None:
    published = tmp_path / "published.json"
    names = list(catalogue.cells())
    results.write(published, [result("no-boot", names[0]), result("booted", names[1])])
    store = Store(tmp_path, published)
    store.put(result("booted", names[0], at=1_800_000_000))
    store.put(result("lab-failed", names[2]))
    assert {name: found.status for name, found in store.all().items()} == {
        names[0]: "booted", names[1]: "booted", names[2]: "lab-failed",
    }  # fmt: skip
    cells = catalogue.cells()
    assert store.done(cells[names[0]], "now") is not None
    assert store.done(cells[names[0]], "other code") is None
    assert store.done(cells[names[2]], "now") is None, "what the lab failed to do is done again"


def test_a_report_that_is_none_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text("[1]")
    with pytest.raises(UsageError, match="not a report"):
        results.read(tmp_path / "r.json")


def test_the_page_counts_what_was_promised_and_did_not_boot() -> None:
    names = list(catalogue.cells())
    found = {
        one.cell: one
        for one in (
            result("booted", names[0], seconds={"medium": 60.0, "adapt": 90.0}, accelerator="tcg"),
            result("refused", names[1], reason="too small | by far"),
            result("no-boot", names[2], reason="It never came up."),
            result("broken", names[3], code="before"),
            result("untested", names[4], reason="this QEMU has no igb"),
        )
    }
    page = report.markdown(found, catalogue.cells(), "now")
    assert "| 1 | 1 | 2 | 1 |" in page
    assert "too small \\| by far" in page
    assert "**booted, not whole** ᵉ" in page
    assert f"Not run yet ({len(names) - 5})" in page
    assert "4 of the 5 results" in page


def test_a_page_without_results_claims_none() -> None:
    page = report.markdown({}, catalogue.cells(), "now")
    assert "None of them has been run" in page
    assert "| booted twice |" not in page


def test_the_key_is_the_content_of_the_code() -> None:
    assert results.code_key() == results.code_key()
    assert results.code_key() != results.code_key([Path(__file__)])


def test_a_configuration_by_mac_may_be_on_a_card_of_any_name() -> None:
    source = catalogue.SOURCES["d12-lvm"]
    after = msgspec.structs.replace(GOOD, addresses={"enp0s7": ["UP", "10.0.2.40/24"]})
    words = [check for check in observe.judge(source, GOOD, after) if "10.0.2.40" in check.what]
    assert [check.held for check in words] == [True]
    after = msgspec.structs.replace(GOOD, addresses={"enp0s7": ["UP", "10.0.2.41/24"]})
    assert not next(check for check in observe.judge(source, GOOD, after) if "10.0.2.40" in check.what).held
