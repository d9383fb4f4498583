"""The repository server: thin HTTP over `recovery.repository`, with users, roles, one-time codes and TLS."""
