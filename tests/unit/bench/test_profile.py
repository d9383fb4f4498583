"""Each sample of a profile belongs to one share: that of its innermost frame, else what its stack was there for."""

from __future__ import annotations

import pytest

from tests.bench.profile import share_of, shares

DECODE = (
    "    7f01 ZSTD_decompressSequences_bmi2 (/venv/zstandard/backend_c.so)\n    7f02 [unknown] (/usr/bin/python3.11)\n"
)
WRITE = "  ff gup_fast_fallback ([kernel])\n  ff ext4_file_write_iter ([kernel])\n  7f os_pwrite (python3.11)\n"
READ = (
    "  ffff _copy_to_iter ([kernel.kallsyms])\n  ffff filemap_read ([kernel.kallsyms])\n  7f os_preadv (python3.11)\n"
)
FAULT = (
    "  ffff clear_page_erms ([kernel.kallsyms])\n  7f01 ZSTD_decompressSequences_bmi2 (/venv/zstandard/backend_c.so)\n"
)


@pytest.mark.parametrize(
    ("stack", "share"),
    [
        (DECODE, "decompress (zstd)"),
        (WRITE, "write: submit and complete (O_DIRECT)"),
        (READ, "read: page cache to buffer"),
        (FAULT, "fresh memory: page faults"),
        ("  7f ossl_aes_gcm_decrypt_avx512 (/venv/_rust.abi3.so)\n", "decrypt (AES-256-GCM)"),
        ("  7f _PyEval_EvalFrameDefault (/usr/bin/python3.11)\n", "Python"),
        ("  7f something (/usr/lib/unheard.so)\n", "other"),
    ],
)
def test_a_sample_is_counted_where_it_belongs(stack: str, share: str) -> None:
    assert share_of(stack) == share


def test_empty_stacks_are_no_samples() -> None:
    assert shares([DECODE, "\n", "", READ, READ]) == {"decompress (zstd)": 1, "read: page cache to buffer": 2}
