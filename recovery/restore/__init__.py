"""The hot path of a restore: fetch, decode, verify, write."""
