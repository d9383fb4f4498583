"""Where it is stored: object stores (directory, S3, HTTP server), the repository on top of them, checks."""
