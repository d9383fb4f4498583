"""Disks of a host become a recovery point: sources, inventory, pipeline."""
