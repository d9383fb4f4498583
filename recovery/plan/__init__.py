"""(point, machine, choices) -> plan or problems. Pure: no I/O, so a plan can be tried on recorded machines."""
