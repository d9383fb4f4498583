"""The repository server: thin HTTP over `recovery.repository`, with users, roles, recovery codes and TLS."""
