"""What processor models of VM definitions ask of the machine: the flags that each generation brought.

A part of QEMU's models (``target/i386/cpu.c``, ``builtin_x86_defs``) in Linux' words (``/proc/cpuinfo``): those that
tell generations and makers apart and that KVM cannot make up for. A model whose flags are all here may still lack one
that is not in the table; one that lacks a flag of the table does not start under libvirt's ``match='exact'``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: Model -> the model before it, and what it brought.
_MODELS: dict[str, tuple[str, str]] = {
    "Conroe": ("", "ssse3"),
    "Penryn": ("Conroe", "sse4_1 cx16"),
    "Nehalem": ("Penryn", "sse4_2 popcnt"),
    "Westmere": ("Nehalem", "aes"),
    "SandyBridge": ("Westmere", "avx xsave pclmulqdq"),
    "IvyBridge": ("SandyBridge", "f16c rdrand fsgsbase smep erms"),
    "Haswell": ("IvyBridge", "avx2 fma bmi1 bmi2 movbe pcid invpcid"),
    "Broadwell": ("Haswell", "adx rdseed smap"),
    "Skylake-Client": ("Broadwell", "xsavec xgetbv1"),
    "Skylake-Server": ("Skylake-Client", "avx512f avx512dq avx512cd avx512bw avx512vl clwb clflushopt pdpe1gb"),
    "Cascadelake-Server": ("Skylake-Server", "avx512_vnni"),
    "Cooperlake": ("Cascadelake-Server", "avx512_bf16"),
    "Icelake-Server": ("Skylake-Server", "avx512_vnni avx512vbmi avx512_vbmi2 gfni vaes vpclmulqdq la57"),
    "SapphireRapids": ("Icelake-Server", "avx512_bf16 amx_tile amx_int8 sha_ni"),
    "GraniteRapids": ("SapphireRapids", ""),
    "Opteron_G1": ("", "lahf_lm"),
    "Opteron_G2": ("Opteron_G1", "cx16"),
    "Opteron_G3": ("Opteron_G2", "sse4a misalignsse popcnt"),
    "Opteron_G4": ("Opteron_G3", "aes avx sse4_2 fma4 xop"),
    "Opteron_G5": ("Opteron_G4", "f16c fma tbm"),
    "EPYC": ("", "sse4a misalignsse avx2 fma bmi1 bmi2 adx rdseed smap sha_ni xsavec clflushopt"),
    "EPYC-Rome": ("EPYC", "clwb umip rdpid"),
    "EPYC-Milan": ("EPYC-Rome", "pcid invpcid erms fsrm pku"),
    "EPYC-Genoa": ("EPYC-Milan", "avx512f avx512bw avx512vl avx512_vnni avx512_bf16 la57 vaes"),
    # Proxmox' and QEMU's models by the levels of the x86-64 psABI.
    "x86-64-v2": ("", "cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3"),
    "x86-64-v2-AES": ("x86-64-v2", "aes"),
    "x86-64-v3": ("x86-64-v2", "avx avx2 bmi1 bmi2 f16c fma movbe"),
    "x86-64-v4": ("x86-64-v3", "avx512f avx512bw avx512cd avx512dq avx512vl"),
}

#: Libvirt's names of features that Linux calls otherwise.
_FEATURES = {"pclmuldq": "pclmulqdq", "sse4.1": "sse4_1", "sse4.2": "sse4_2", "avx512-vnni": "avx512_vnni",
             "avx512vnni": "avx512_vnni",
             "avx512-bf16": "avx512_bf16", "avx512-vbmi2": "avx512_vbmi2", "sha-ni": "sha_ni",
             "amx-tile": "amx_tile", "amx-int8": "amx_int8", "nrip-save": "nrip_save"}  # fmt: skip
_KNOWN = {flag for _, flags in _MODELS.values() for flag in flags.split()} | {
    "vmx", "svm", "rtm", "hle", "invtsc", "nrip_save", "npt", "tsc_deadline_timer",
}  # fmt: skip
#: KVM gives a guest these whether the processor has them or not.
_MADE_UP = {"tsc_deadline_timer", "umip"}


def flags_of_model(model: str) -> frozenset[str]:
    """The flags that a model asks for, as far as the table goes; empty for one that is not known. Pure.

    ``Skylake-Server-noTSX-IBRS`` and ``EPYC-v4`` are variants of a model.
    """
    name = re.sub(r"(-(noTSX|IBRS|IBPB|TSX|v\d+))+$", "", model)
    name = model if model in _MODELS else name
    found: set[str] = set()
    while name in _MODELS:
        name, flags = _MODELS[name]
        found.update(flags.split())
    return frozenset(found - _MADE_UP)


def flag_of_feature(feature: str) -> str:
    """Linux' word for a feature that a definition demands; empty for one of which we do not know it. Pure."""
    name = _FEATURES.get(feature, feature)
    return name if name in _KNOWN - _MADE_UP else ""


def missing(wanted: Iterable[str], flags: Iterable[str]) -> list[str]:
    """What of ``wanted`` the processor lacks, sorted. ``invtsc`` is two flags in Linux. Pure."""
    here = set(flags)
    if {"constant_tsc", "nonstop_tsc"} <= here:
        here.add("invtsc")
    return sorted(set(wanted) - here)
