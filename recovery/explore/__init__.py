"""A point as disks, volumes and files, read from its repository without restoring or mounting it."""
