"""The initramfs waits for a medium that comes late, and says so; its script is run by the shell of this machine."""

from __future__ import annotations

import subprocess
from importlib import resources
from pathlib import Path

SCRIPT = Path(str(resources.files("rekindle_image"))) / "base/files/etc/initramfs-tools/scripts/rekindle"

#: Nothing is waited for, mounted or looked for; a drive that comes is a block device that can be mounted.
STUBS = """
panic() { exit 1; }
busybox() { case $1 in sleep) sleeps=$((sleeps + 1)) ;; mount) [ "$6" = /dev/null ] ;; *) : ;; esac; }
blkid() { [ -z "$late" ] || [ $sleeps -lt "$late" ] || echo /dev/null; }
tell() { echo "$*"; }
holds_images() { [ -n "$late" ]; }
sleeps=0
"""


def waited(late: str = "") -> tuple[int, list[str]]:
    """Exit code and what was told; the drive is there after ``late`` tenths of a second, or never."""
    # "-b" is no question of the shell here: /dev/null stands for a drive.
    script = SCRIPT.read_text().replace('[ -b "$device" ]', '[ -c "$device" ]')
    text = f"late={late}\n{script}\n{STUBS}\nfind_medium\n"
    done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=False, timeout=60)
    return done.returncode, done.stdout.splitlines()


def test_without_a_medium_it_is_told_what_to_do_and_given_up_after_three_minutes() -> None:
    code, told = waited()
    assert code == 1
    assert told[0].startswith("Waiting for the medium")
    assert [line for line in told if "30 of 180 s" in line] and [line for line in told if "150 of 180 s" in line]
    assert "No Rekindle medium" in told[-2] and "Plug it in again" in told[-1]


def test_a_drive_that_comes_late_is_taken() -> None:
    code, told = waited("1000")
    assert code == 0
    assert "90 of 180 s" in told[-1]
