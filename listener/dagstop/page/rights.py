"""What the page's process gives up before it reads the first byte of a request."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource

from dagstop.errors import DagstopError

_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38  # linux/prctl.h
_CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
NOBODY = 65534


def yield_to_the_listener() -> None:
    """Run after everything else, and be the first to go where memory is short."""
    os.nice(10)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass  # it is a wish


def drop() -> None:
    """Root becomes nobody, for good; anyone can gain nothing by an exec, and is not to be traced.

    Raises DagstopError where root may not become another user: then nothing is served.
    """
    if os.geteuid() == 0:
        try:
            nobody = pwd.getpwnam("nobody")
            uid, gid = nobody.pw_uid, nobody.pw_gid
        except KeyError:
            uid = gid = NOBODY
        try:
            os.setgroups([])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        except OSError as exc:
            raise DagstopError(
                f"the page's process cannot become user nobody ({exc.strerror}): "
                "give the listener CAP_SETUID and CAP_SETGID, as `dagstop systemd` does"
            ) from exc
    libc = ctypes.CDLL(None, use_errno=True)
    # a listener that is not root may have been given some, which its children inherit
    if libc.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()) != 0:
        raise DagstopError(f"capset: {os.strerror(ctypes.get_errno())}")
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 0)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise DagstopError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
