"""The command line: one file a command, each a thin client of a room below."""
