"""Runs a plan as a sequence of steps; owns state, journal and cancellation; a typed local API on a unix socket."""
