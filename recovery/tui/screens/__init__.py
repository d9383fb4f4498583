"""The screens of the recovery console, one file each, in the order a restore takes."""
