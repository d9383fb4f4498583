"""Which blocks of whole disks changed, without a kernel module."""
