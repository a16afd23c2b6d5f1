"""seccomp: the system calls that end a process on the spot. Linux, with libseccomp.

The parent has libseccomp translate the names into a program, once; the child only installs it, which takes no library
and no time. All threads are bound, those that exist already too.
"""

import ctypes
import errno
import os
import sys
from functools import cache

from baseline import landlock

PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG = 38, 1
SET_MODE_FILTER, TSYNC = 1, 1
NUMBERS = {"x86_64": 317, "aarch64": 277}  # of the system call itself
INSTRUCTION_BYTES = 8
UNKNOWN = -1  # what libseccomp says of a call that it has not heard of

PROCESSES = ("clone", "clone3", "fork", "vfork", "execve", "execveat")  # threads too
THREADS = "threads"  # among what is allowed: a new thread of the same process, and no new process
STACK = "stack"  # likewise: another limit of the process's own stack, which NVIDIA's compiler sets for itself
RLIMIT_STACK = 3  # asm-generic/resource.h
CLONE_THREAD = 0x10000  # linux/sched.h
URING = ("io_uring_setup", "io_uring_enter", "io_uring_register")
NETWORK = ("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4")
OTHERS = (  # what belongs to other processes, and what would leave the group or its limits
    *("kill", "tkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "pidfd_open", "pidfd_getfd", "pidfd_send_signal"),
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp"),
    *("setsid", "setpgid", "setrlimit", "setpriority", "sched_setscheduler", "sched_setattr"),
    *("shmget", "shmat", "shmctl", "msgget", "semget", "mq_open", "memfd_create"),
    "timer_create",  # its signal may be the SIGCONT that wakes a process which the parent has stopped
)
SYSTEM = (
    *("clock_settime", "clock_adjtime", "settimeofday", "adjtimex", "reboot", "kexec_load", "kexec_file_load"),
    *("mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "swapon", "swapoff", "quotactl", "acct"),
    *("mount_setattr", "move_mount", "open_tree", "fsopen", "fsmount", "open_by_handle_at", "personality"),
    *("init_module", "finit_module", "delete_module", "bpf", "perf_event_open", "userfaultfd"),
    *("keyctl", "add_key", "request_key"),
)
ATTRIBUTES = (  # Landlock lets them through
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
    *("utime", "utimes", "utimensat", "futimesat"),
)
# What a compiler does, and a kernel must not: it starts its parts, makes room on the stack, marks what it linked.
COMPILING = (*PROCESSES, *ATTRIBUTES, "setrlimit", "prlimit64")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def missing() -> str:
    """Why there is no seccomp here, '' where there is."""
    if sys.platform != "linux":
        return "Linux alone has seccomp"
    if os.uname().machine not in NUMBERS:
        return f"no seccomp for {os.uname().machine}"
    try:
        import pyseccomp  # noqa: F401
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # the last ones: no libseccomp, or an old one
        return f"seccomp needs libseccomp ({error})"
    return ""


@cache
def program(allowed: tuple[str, ...] = ()) -> bytes:
    """What `install` takes. It ends a process at any of the calls above that is not `allowed`; of clone3, whose flags
    a filter cannot see, one that may start THREADS is told that there is none, and the C library calls clone.

    io_uring can open sockets. A signal to a thread is refused where Landlock does not keep signals within the sandbox:
    abort() ends with SIGSEGV then. OSError from libseccomp.
    """
    import tempfile  # here: what only installs a program starts without it

    import pyseccomp as libseccomp

    rules = libseccomp.SyscallFilter(libseccomp.ALLOW)
    rules.set_attr(libseccomp.Attr.ACT_BADARCH, libseccomp.KILL_PROCESS)
    for name in (*PROCESSES, *URING, *NETWORK, *OTHERS, *SYSTEM, *ATTRIBUTES):
        if name not in allowed and libseccomp.resolve_syscall(libseccomp.Arch.NATIVE, name) != UNKNOWN:
            if THREADS in allowed and name == "clone3":
                rules.add_rule(libseccomp.ERRNO(errno.ENOSYS), name)
            elif THREADS in allowed and name == "clone":
                alone = libseccomp.Arg(0, libseccomp.MASKED_EQ, CLONE_THREAD, 0)
                rules.add_rule(libseccomp.KILL_PROCESS, name, alone)
            else:
                rules.add_rule(libseccomp.KILL_PROCESS, name)
    rules.add_rule(libseccomp.KILL_PROCESS, "prctl", libseccomp.Arg(0, libseccomp.EQ, PR_SET_PDEATHSIG))
    if "prlimit64" not in allowed:
        sets, other = libseccomp.Arg(2, libseccomp.NE, 0), libseccomp.Arg(0, libseccomp.NE, 0)
        limit = [libseccomp.Arg(1, libseccomp.NE, RLIMIT_STACK)] if STACK in allowed else []
        rules.add_rule(libseccomp.KILL_PROCESS, "prlimit64", *limit, sets)
        rules.add_rule(libseccomp.KILL_PROCESS, "prlimit64", other, sets)
    if landlock.abi() < landlock.SCOPE_ABI:
        rules.add_rule(libseccomp.ERRNO(1), "tgkill")
    with tempfile.TemporaryFile() as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def install(instructions: bytes) -> None:
    """Binds all threads of this process to a `program`. OSError where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    content = _Program(len(instructions) // INSTRUCTION_BYTES, instructions)
    number = NUMBERS[os.uname().machine]
    refused = libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    refused = refused or libc.syscall(number, SET_MODE_FILTER, TSYNC, ctypes.byref(content))
    if refused:  # a positive number is the thread that could not be bound
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}")
