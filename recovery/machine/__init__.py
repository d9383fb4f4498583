"""The machine in front of us as plain data: disks, firmware, NICs. Recorded machines are test data."""
