"""How the agent is told to capture a disk of a guest that runs the medium; the repository is in its memory."""

from __future__ import annotations

CONFIG = """
host = "hv1"
disks = ["{disk}"]
[repository]
location = "/run/lab-agent/repository"
secret_file = "/run/lab-agent/secret"
[schedule]
keyframe = "1h"
journal = "3s"
[limits]
freeze = "10s"
[spool]
directory = "/run/lab-agent/spool"
[status]
directory = "/run/lab-agent/status"
"""
