"""The console over real SSH: the medium's scripts, dropbear, the engine, in namespaces of their own."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOTFS = ROOT / "image-build/rekindle_image/rootfs"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for namespaces"),
    pytest.mark.skipif(not shutil.which("dropbear") or not shutil.which("ssh"), reason="needs dropbear and ssh"),
]

#: A little medium: our scripts in /usr/lib/rekindle, /root, /run/rekindle* and the password file are its own.
STAGE = r"""
set -eu
mkdir -p {tmp}/root {tmp}/etc {tmp}/bin
ip link set lo up
cp -a /etc {tmp}/
mount --bind {tmp}/etc /etc
mkdir -p /etc/rekindle
usermod -p '*' root
mount -t overlay overlay -o lowerdir={rootfs}/usr/lib:/usr/lib /usr/lib
# A checkout may lie in root's own home, which is another one from here on.
case {root} in /root/*) mkdir -p {tmp}{root}; mount --bind {root} {tmp}{root} ;; esac
mount --rbind {tmp}/root /root
mount -t tmpfs tmpfs /run
mkdir -p /run/rekindle-ssh
cp {tmp}/key.pub /etc/rekindle/authorized_keys
printf '#!/bin/sh\nexec {root}/.venv/bin/rekindle "$@"\n' > {tmp}/bin/rekindle
chmod 755 {tmp}/bin/rekindle
# Where the medium has it: the SSH server gives a login a path of its own.
mount -t overlay overlay -o lowerdir={tmp}/bin:/usr/bin /usr/bin
/usr/lib/rekindle/ssh-prepare
rekindle engine --socket /run/rekindle/engine.sock --no-look-inside --log-directory {tmp}/log &
. {tmp}/password
$(sed -n 's/^ExecStart=//p' {rootfs}/etc/systemd/system/rekindle-ssh.service) -e -p 127.0.0.1:2222 &
touch {tmp}/ready
exec {run}
"""


class Medium:
    """Runs one command in the little medium and lets a test talk to it through a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True)
        (folder / "password").write_text(":\n")

    def talk(self, command: str, until: str, keys: bytes = b"", then: str = "", seconds: float = 120) -> str:
        script = STAGE.format(tmp=self.folder, rootfs=ROOTFS, root=ROOT, run=f"sh -c {shell_quote(command)}")
        (self.folder / "stage.sh").write_text(textwrap.dedent(script))
        child, terminal = pty.fork()
        if child == 0:
            argv = ["unshare", "-mnp", "--fork", "--kill-child", "--mount-proc", "sh", str(self.folder / "stage.sh")]
            os.execvpe("unshare", argv, {**os.environ, "TERM": "xterm", "LINES": "25", "COLUMNS": "80"})
        said, sent, deadline = "", False, time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                if not select.select([terminal], [], [], 0.5)[0]:
                    continue
                try:
                    said += os.read(terminal, 65536).decode(errors="replace")
                except OSError:
                    break
                if until in plain(said) and not sent:
                    os.write(terminal, keys)
                    sent = True
                    if not then:
                        break
                if sent and then in plain(said):
                    break
        finally:
            os.close(terminal)
            # Not SIGTERM, which unshare blocks, nor the hang-up alone, which a run under nohup ignores.
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return plain(said)


def plain(text: str) -> str:
    """Without the sequences that drive a terminal."""
    return re.sub(r"\x1b(\[[0-9;?=><]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9]|[=>])", "", text)


def shell_quote(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


#: Once the port is open; ``sh`` knows no /dev/tcp.
SSH = (
    "until bash -c ': < /dev/tcp/127.0.0.1/2222' 2> /dev/null; do sleep 0.1; done; "
    "ssh -p 2222 -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR "
)


@pytest.fixture
def medium(tmp_path: Path) -> Iterator[Medium]:
    yield Medium(tmp_path)


def test_a_key_opens_the_console(medium: Medium) -> None:
    said = medium.talk(f"{SSH} -tt -i {medium.folder}/key root@127.0.0.1", until="Network")
    assert "Rekindle" in said


def test_a_command_is_run(medium: Medium) -> None:
    said = medium.talk(f"{SSH} -i {medium.folder}/key root@127.0.0.1 'echo $((6*7)) is it; id -un'", until="42 is it")
    assert "42 is it" in said


def test_without_a_terminal_it_says_what_to_do(medium: Medium) -> None:
    said = medium.talk(f"{SSH} -T -i {medium.folder}/key root@127.0.0.1 < /dev/null", until="needs a terminal")
    assert "ssh -t" in said


def test_only_the_one_time_password_opens_it(medium: Medium) -> None:
    (medium.folder / "password").write_text("echo 'root:ABCD-EFGH-JKMN' | chpasswd\n")
    ssh = f"{SSH} -o PubkeyAuthentication=no -o NumberOfPasswordPrompts=2 root@127.0.0.1 'echo in''side'"
    said = medium.talk(ssh, until="password:", keys=b"wrong\n", then="denied")
    assert "inside" not in said
    said = medium.talk(ssh, until="password:", keys=b"ABCD-EFGH-JKMN\n", then="inside")
    assert "inside" in said


def test_nobody_gets_in_without_any(medium: Medium) -> None:
    said = medium.talk(
        f"{SSH} -o PubkeyAuthentication=no root@127.0.0.1 id", until="password:", keys=b"\n", then="denied"
    )
    assert "uid=0" not in said
