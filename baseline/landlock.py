"""Landlock: which files a process, and all that it starts, may still open. Linux 6.2 or later.

The rights bind the thread that gives them up and those that it starts afterwards, so that this comes before any other
thread exists. Rights are those of linux/landlock.h; what the kernel does not know yet is left out.
"""

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterable
from functools import cache

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls; one number on every architecture
VERSION, PATH_BENEATH = 1, 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = (1 << bit for bit in range(6))
MAKE_DIR, MAKE_REG, REFER, TRUNCATE, IOCTL_DEV = 1 << 7, 1 << 8, 1 << 13, 1 << 14, 1 << 15
LEAST_ABI = 3  # older kernels let files be truncated anywhere
RIGHTS = {3: 15, 4: 15}  # how many an ABI has
LATEST = 16
NETWORK_ABI, NETWORK = 4, 0b11  # TCP: bind and connect
SCOPE_ABI, SCOPED = 6, 0b11  # abstract sockets, and signals to processes outside

OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
READ = EXECUTE | READ_FILE | READ_DIR
# No symbolic links, pipes or devices: the parent reads what lies there, and must neither be led elsewhere nor wait.
WRITE = READ_FILE | READ_DIR | WRITE_FILE | TRUNCATE | MAKE_REG | MAKE_DIR | REFER | REMOVE_FILE | REMOVE_DIR
CONTROL = READ_FILE | READ_DIR | WRITE_FILE | IOCTL_DEV

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


@cache
def abi() -> int:
    """The version of the kernel's Landlock; 0 where there is none that is enough."""
    found = _libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), VERSION) if sys.platform == "linux" else 0
    return int(found) if found >= LEAST_ABI else 0


def restrict(read: Iterable[str], write: Iterable[str], control: Iterable[str] = ()) -> None:
    """From now on only what lies at or under these paths can be opened, and no TCP socket bound or connected; devices
    at or under `control` can be written and asked anything.

    A path that does not exist is passed over. OSError where the kernel refuses, or has no Landlock.
    """
    known = (1 << RIGHTS.get(abi(), LATEST)) - 1
    ruleset = _Ruleset(known, NETWORK if abi() >= NETWORK_ABI else 0, SCOPED if abi() >= SCOPE_ABI else 0)
    size = 24 if abi() >= SCOPE_ABI else 16 if abi() >= NETWORK_ABI else 8
    handle = _call(CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(size), 0)
    try:
        for paths, rights in ((read, READ), (write, WRITE), (control, CONTROL)):
            for path in paths:
                _allow(handle, path, rights & known)
        if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        _call(RESTRICT_SELF, handle, 0)
    finally:
        os.close(handle)


def _allow(handle: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES):
            return
        raise
    try:
        allowed = rights if stat.S_ISDIR(os.fstat(parent).st_mode) else rights & OF_FILES
        _call(ADD_RULE, handle, PATH_BENEATH, ctypes.byref(_PathBeneath(allowed, parent)), 0)
    finally:
        os.close(parent)


def _call(number: int, *arguments: object) -> int:
    done = int(_libc.syscall(number, *arguments))
    if done < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return done
