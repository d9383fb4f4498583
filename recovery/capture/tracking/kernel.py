"""The bpf(2) and membarrier(2) system calls, by ctypes: maps, programs, tracepoints. No library, no compiler."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from recovery.errors import DeviceError

_SYSCALLS = {"x86_64": (321, 324), "aarch64": (280, 283)}
_MAP_CREATE, _PROG_LOAD, _OBJ_GET_INFO, _RAW_TRACEPOINT_OPEN = 0, 5, 15, 17
_TYPE_ARRAY = 2
_FLAG_MMAPABLE = 1 << 10
#: A program of a tracepoint whose arguments the verifier knows the types of (Linux 5.5).
_PROG_TYPE_TRACING, _TRACE_RAW_TRACEPOINT = 26, 23
#: Attributes are zero-padded to this: zeros behind what a kernel knows are allowed.
_ATTR_SIZE = 128
_MEMBARRIER_GLOBAL = 1
#: Place of recursion_misses in struct bpf_prog_info (Linux 5.12).
_INFO_SIZE, _INFO_MISSES = 232, 208

_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(which: int, *arguments: object) -> int:
    numbers = _SYSCALLS.get(platform.machine())
    if numbers is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    result = int(_libc.syscall(ctypes.c_long(numbers[which]), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _bpf(command: int, attributes: bytes, doing: str) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(_ATTR_SIZE, b"\0"), _ATTR_SIZE)
    try:
        return _syscall(0, ctypes.c_int(command), buffer, ctypes.c_uint(_ATTR_SIZE))
    except OSError as error:
        raise DeviceError(
            f"The kernel did not {doing} for changed-block tracking: {error.strerror}.",
            hint="It needs root, Linux 5.12 or newer, and no lockdown in 'confidentiality' mode.",
        ) from error


def array_map(value_size: int, entries: int) -> int:
    """A descriptor of a new array that can be mapped into memory; its elements lie behind one another."""
    attributes = struct.pack("<IIIII", _TYPE_ARRAY, 4, value_size, entries, _FLAG_MMAPABLE)
    return _bpf(_MAP_CREATE, attributes, "give memory")


def load(code: bytes, name: str, tracepoint: int) -> int:
    """Load a program for the tracepoint whose type has this number; a descriptor. The verifier's log is off: with it
    large maps are refused."""
    code_buffer, license = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "<IIQQ24x16s4xI36xI",
        _PROG_TYPE_TRACING,
        len(code) // 8,
        ctypes.addressof(code_buffer),
        ctypes.addressof(license),
        name.encode()[:15],
        _TRACE_RAW_TRACEPOINT,
        tracepoint,
    )
    return _bpf(_PROG_LOAD, attributes, "load the program")


def attach(program: int) -> int:
    """Run the program at each event of its tracepoint until the descriptor returned is closed."""
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QI", 0, program), "attach the program")


def recursion_misses(program: int) -> int:
    """How many events the program did not see because it was interrupted while it ran, on the same CPU."""
    info = ctypes.create_string_buffer(_INFO_SIZE)
    _bpf(_OBJ_GET_INFO, struct.pack("<IIQ", program, _INFO_SIZE, ctypes.addressof(info)), "describe the program")
    return int(struct.unpack_from("<Q", info.raw, _INFO_MISSES)[0])


def wait_for_programs() -> None:
    """Return when every program that ran at the time of the call has ended (synchronize_rcu in the kernel).

    Raises OSError where the kernel does not offer it (nohz_full).
    """
    _syscall(1, ctypes.c_int(_MEMBARRIER_GLOBAL), ctypes.c_uint(0), ctypes.c_int(0))
