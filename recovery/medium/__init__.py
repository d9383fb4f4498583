"""The recovery medium as a file and as a stick: the checksums it carries, its check, and writing it to a drive."""
