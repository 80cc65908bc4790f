"""Landlock(7): a process gives up writing anywhere but below a few directories, for itself and all that it starts.

No privilege is needed. Reading and running stay as they are. Source: linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""The numbers of the system calls on every architecture of Linux but Alpha."""
_VERSION = 1
_PATH_BENEATH = 1
_NO_NEW_PRIVS = 38
_SCOPE_SIGNAL = 2

WRITE_FILE = 1 << 1
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = (1 << bit for bit in range(6, 13))
REFER, TRUNCATE = 1 << 13, 1 << 14

EVERYTHING = WRITE_FILE | REMOVE_DIR | REMOVE_FILE | sum(1 << bit for bit in range(6, 15))
"""Every way to change what is there or to make something new. Versions before 3 of the kernel's interface know less."""
CONTENT = WRITE_FILE | TRUNCATE
TREE = CONTENT | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER
"""All that a release is made of: files, directories and symbolic links."""
SCRATCH = TREE | MAKE_SOCK | MAKE_FIFO

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """The version of the kernel's interface; 0 where Landlock is missing, switched off or forbidden."""
    found = _libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(int(found), 0)


def ruleset(grants: Iterable[tuple[int, int]], *, interface: int) -> int:
    """A descriptor of rules that allow, below each open directory or file, the rights beside it, and no other writing.

    `interface`: what `version` said. Raises OSError.
    """
    known = _known(interface)
    signals = _SCOPE_SIGNAL if interface >= 6 else 0
    attributes = _Ruleset(known, 0, signals)
    size = 24 if interface >= 6 else 8
    made = _call(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for descriptor, rights in grants:
            rule = _Beneath(rights & known, descriptor)
            _call(_ADD_RULE, ctypes.c_int(made), ctypes.c_int(_PATH_BENEATH), ctypes.byref(rule), ctypes.c_uint32(0))
    except BaseException:
        os.close(made)
        raise
    return made


def restrict(rules: int) -> None:
    """Give up, for this process and all that it will start, what the open `rules` do not allow. Raises OSError."""
    forgo_privileges()
    _call(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0))


def forgo_privileges() -> None:
    """No program started from here gains rights by a setuid bit. Raises OSError."""
    if _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _known(interface: int) -> int:
    late = {2: REFER, 3: TRUNCATE}
    return EVERYTHING & ~sum(right for since, right in late.items() if interface < since)


def _call(number: int, *arguments: object) -> int:
    found = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if found < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return found
