"""Consistent points of a running host without snapshots: pre-copy, freeze, last pass, thaw."""
