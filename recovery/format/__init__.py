"""What is stored: chunk frames, packs, chunk maps, points and keys. Pure: bytes in, values out. See docs/format.md."""
