"""The agent on the disk of the lab's host, as an administrator would have installed it, without booting it.

Debian's Python and our locked packages are the ones that a medium has; the unit is
``packaging/rekindle-agent.service`` and is enabled, so the agent starts with the host.
"""

from __future__ import annotations

import fcntl
import shutil
from dataclasses import dataclass
from pathlib import Path

from rekindle_image.code import PYTHON, find_lock, install_python_packages
from rekindle_image.request import default_cache
from rekindle_image.scratch import scratch_folder
from rekindle_image.workshop import HERE, Workshop, content_hash

from recovery.commands import run
from recovery.events import ignore
from tests.e2e.lab.host_image import recipe, rootfs
from tests.e2e.lab.host_image.build import CACHE, mounted_root
from tests.e2e.lab.host_image.rootfs import Say
from tests.e2e.lab.server import CHECKOUT

#: What the agent needs of Debian, beside what a virtualization host has.
PACKAGES = ("python3", "python3-parted")
CODE = Path("opt/rekindle")
COMMAND = Path("usr/local/bin/rekindle")
ETC = Path("etc/rekindle")
#: The unit is for the old machine: on the one that the host comes back on, its disk has another name, and an agent
#: that looks for this one would only fail, over and over.
_ONLY_HERE = "[Unit]\nConditionPathExists={disk}\n"
_UNITS = Path("etc/systemd/system")
_UNIT = "rekindle-agent.service"


@dataclass(frozen=True)
class AgentSetup:
    """How the agent reaches the server and how often it makes points; times as in agent.toml."""

    location: str
    ca: str
    user: str
    password: str
    passphrase: str
    disk: str
    journal: str = "1m"
    keyframe: str = "1h"
    freeze: str = "500ms"

    def config(self) -> str:
        """``/etc/rekindle/agent.toml``."""
        return f"""\
host = "{recipe.HOST_NAME}"
disks = ["{self.disk}"]

[repository]
location = "{self.location}"
ca = "{self.ca}"
user = "{self.user}"
password_file = "/{ETC}/agent.password"
secret_file = "/{ETC}/agent.secret"

[schedule]
keyframe = "{self.keyframe}"
journal = "{self.journal}"

[limits]
freeze = "{self.freeze}"
"""


def python_files(say: Say, cache: Path = CACHE) -> Path:
    """The folder ``usr`` of Debian's Python and all that it needs, from the cache or unpacked now. Raises
    CommandError."""
    folder = cache / f"agent-python-{content_hash(recipe.SUITE, *PACKAGES)}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "agent-python.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            with scratch_folder(cache) as work:
                say("unpacking Python for the agent")
                made = rootfs.bootstrap(work / "python", PACKAGES, "extract", say)
                (made / "usr").rename(folder)
    return folder


def locked_packages(work: Path) -> Path:
    """Our locked packages for the host's Python, as a medium has them; from the same cache. Raises CommandError."""
    shop = Workshop(work, default_cache(), work / "packages.log", 0, ignore)
    return install_python_packages(shop, find_lock())[0]


def install(disk: Path, setup: AgentSetup, say: Say) -> None:
    """Put the agent on the host's ``disk``, configured and enabled. Root. Raises CommandError, also when it would not
    start there."""
    python = python_files(say)
    with mounted_root(disk) as root, scratch_folder(CACHE) as work:
        say("installing the agent on the host's disk")
        lay_beside(python, root / "usr")
        code = root / CODE
        shutil.copytree(locked_packages(work), code)
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(CHECKOUT / "recovery", code / "recovery", ignore=ignored)
        shutil.copyfile(HERE / "rootfs/usr/bin/rekindle", root / COMMAND)
        (root / COMMAND).chmod(0o755)
        write_settings(root, setup)
        say("compiling the agent's code")
        # Without it the first start costs an emulated processor a minute. Some files of Debian's are not for this.
        words: list[str | Path] = ["chroot", root, "python3", "-m", "compileall", "-q"]
        words += ["--invalidation-mode", "unchecked-hash", f"/usr/lib/python{PYTHON}", "/usr/lib/python3", f"/{CODE}"]
        run(words, check=False)
        # Its Python, its packages and its configuration, in the host's own system.
        run(["chroot", root, f"/{COMMAND}", "agent", "--check"])
        run(["chroot", root, "python3", "-c", "import parted"])


def lay_beside(files: Path, folder: Path) -> None:
    """Copy what ``folder`` does not have: the host's own libraries stay as they are. Raises CommandError."""
    script = 'tar -C "$0" -cf - . | tar -C "$1" --skip-old-files --keep-directory-symlink -xf -'
    run(["bash", "-o", "pipefail", "-c", script, files, folder])


def write_settings(root: Path, setup: AgentSetup) -> None:
    """Configuration, secrets that only root may read, and the unit, below ``root``."""
    etc = root / ETC
    etc.mkdir(mode=0o700, parents=True, exist_ok=True)
    (etc / "agent.toml").write_text(setup.config())
    for name, text in (("agent.password", setup.password), ("agent.secret", setup.passphrase)):
        (etc / name).touch(0o600)
        (etc / name).write_text(text + "\n")
    units = root / _UNITS
    (units / f"{_UNIT}.d").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(CHECKOUT / "packaging" / _UNIT, units / _UNIT)
    (units / f"{_UNIT}.d/lab.conf").write_text(_ONLY_HERE.format(disk=setup.disk))
    wants = units / "multi-user.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / _UNIT).unlink(missing_ok=True)
    (wants / _UNIT).symlink_to(f"/{_UNITS}/{_UNIT}")
