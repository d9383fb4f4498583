"""Look at the console by hand: ``python tests/unit/tui/try_console.py [--address [ADDRESS]] [--disks 2] [--fail]``.

The engine behind it is the tests' double. User 'restore', password 'wool-gate', passphrase 'correct horse battery'.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))


def main() -> None:
    """Run the console on this terminal, as ``rekindle tui`` does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", nargs="?", const="192.168.1.20/24", default="")
    parser.add_argument("--untrusted", action="store_true")
    parser.add_argument("--fail", action="store_true")
    parser.add_argument("--disks", type=int, default=1)
    parser.add_argument("--pace", type=float, default=0.4)
    options = parser.parse_args()
    from recovery.tui import terminal

    terminal.prepare()
    from recovery.errors import DeviceError
    from recovery.tui.app import ConsoleApp
    from tests.unit.tui.fake_engine import FakeEngine
    from tests.unit.tui.fake_world import with_address

    engine = FakeEngine(
        address=bool(options.address), trusted=not options.untrusted, disks=options.disks, pace=options.pace
    )
    if options.address:
        engine.machine_now = with_address(engine.machine_now, address=options.address)
    if options.fail:
        engine.fail_with = DeviceError("/dev/nvme0n1 returned an error.", hint="Look at its SMART data, or retry.")
    app = ConsoleApp(engine, terminal.ConsoleDriver, terminal.charset(os.environ))
    app.run(mouse=False)
    if app.failure is not None:
        raise app.failure


if __name__ == "__main__":
    main()
