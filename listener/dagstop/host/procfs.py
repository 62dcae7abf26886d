"""/proc, read raw: one open and one read a file, since an order waits for it.

psutil's environ() costs five times a raw read; the listener looks at every process of the host.
Formats: proc(5). A process may vanish between any two reads: then there is nothing to read. A file
that is there and may not be read is another matter: whoever decides by it must know.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass

from dagstop.errors import DagstopError
from dagstop.host import foreign_memory

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_MOST = 8 << 20  # bytes of one file: the kernel takes no more than 6 MiB of words and variables

SIGTERM_BIT = 1 << (15 - 1)
_NOT_RANDOM = 0x40000  # ADDR_NO_RANDOMIZE of /proc/PID/personality (linux/personality.h)
_EXITING, _KERNEL_THREAD = 0x4, 0x200000  # PF_* of field 9 of /proc/PID/stat (include/linux/sched.h)

_TASK_FOLDER = re.compile(r"(/(?:[^/]+/)*?airflowtmp[A-Za-z0-9_]+)(?:/.*| \(deleted\))?")
_SIGNAL_FIELDS = re.compile(rb"^(State|NSpid|SigBlk|SigIgn|SigCgt):[ \t]*([^\n]*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stat:
    """The fields of /proc/PID/stat that dagstop uses."""

    state: str
    ppid: int
    pgid: int
    sid: int
    start: int  # clock ticks since boot


Layout = tuple[int, int, int, int]
"""Where an exec put the code, the stack, the words and the variables of a process; forks share it."""


@dataclass(frozen=True, slots=True)
class SignalMasks:
    """Whether SIGTERM does anything to a process (/proc/PID/status)."""

    ignores_sigterm: bool
    handles_sigterm: bool  # by a handler, or by waiting for it as tini does (SigCgt, SigBlk)
    stopped: bool = False  # by a signal or a debugger: it sees SIGTERM only once it goes on


def _fields(stat: bytes) -> list[bytes]:
    """/proc/PID/stat from its third field on; the name before that may hold spaces, brackets and newlines."""
    return stat[stat.rfind(b")") + 2 :].split()


def parse_stat(data: bytes) -> Stat | None:
    rest = _fields(data)
    if len(rest) < 20:
        return None
    try:
        return Stat(
            state=rest[0].decode("ascii", "replace"),
            ppid=int(rest[1]),
            pgid=int(rest[2]),
            sid=int(rest[3]),
            start=int(rest[19]),
        )
    except ValueError:
        return None


def parse_ending(data: bytes) -> bool:
    """Whether /proc/PID/stat is of a process that is ending, or has ended: it shows no words any more."""
    return _fields(data)[:1] in ([b"Z"], [b"X"], [b"x"]) or bool(_flags(data) & _EXITING)


def parse_wordless(data: bytes) -> bool:
    """Whether /proc/PID/stat is of what shows no words any more: it is ending, or a kernel thread."""
    return bool(_flags(data) & _KERNEL_THREAD) or parse_ending(data)


def _flags(stat: bytes) -> int:
    rest = _fields(stat)
    return int(rest[6]) if len(rest) > 6 and rest[6].isdigit() else 0


def parse_layout(data: bytes) -> Layout | None:
    """Fields 26, 28, 48 and 50 of /proc/PID/stat; None where they are not shown (0)."""
    rest = _fields(data)
    try:
        code, stack, words, variables = (int(rest[number - 3]) for number in (26, 28, 48, 50))
    except (IndexError, ValueError):
        return None
    return (code, stack, words, variables) if min(code, stack, words, variables) > 1 else None


def parse_task_folder(path: str) -> str | None:
    """The bash task's private folder that a working directory is or lies in; it may be deleted."""
    match = _TASK_FOLDER.fullmatch(path)
    return match.group(1) if match else None


def parse_signal_masks(data: bytes) -> SignalMasks | None:
    """Parse NSpid, State, and the masks SigIgn, SigCgt and SigBlk (hexadecimal) of /proc/PID/status."""
    said = dict(_SIGNAL_FIELDS.findall(data))
    try:
        ignored, caught = int(said[b"SigIgn"], 16), int(said[b"SigCgt"], 16)
        blocked = int(said.get(b"SigBlk", b"0"), 16)
    except (KeyError, ValueError):
        return None
    handles = bool((caught | blocked) & SIGTERM_BIT)
    pids = said.get(b"NSpid", b"").split()
    # the kernel shields the init of a namespace below ours from what it has no handler for
    shielded = len(pids) > 1 and pids[-1] == b"1" and not handles
    stopped = said.get(b"State", b"")[:1] in (b"T", b"t")
    return SignalMasks(bool(ignored & SIGTERM_BIT) or shielded, handles, stopped)


def parse_environ(data: bytes) -> dict[str, str]:
    """The variables of Airflow and dagstop in /proc/PID/environ, and what they tell a docker client.

    Of doubles the first counts, as getenv(3) has it.
    """
    found: dict[str, str] = {}
    if b"AIRFLOW" not in data and b"DAGSTOP" not in data and b"DOCKER_" not in data:
        return found
    for item in data.split(b"\0"):
        if item.startswith((b"AIRFLOW_", b"DAGSTOP_", b"DOCKER_HOST=", b"DOCKER_CONTENT_TRUST=")):
            name, equals, value = item.partition(b"=")
            if equals:
                found.setdefault(name.decode("utf-8", "replace"), value.decode("utf-8", "replace"))
    return found


def parse_argv(data: bytes) -> tuple[str, ...]:
    """/proc/PID/cmdline as words; a process title is one word padded with NULs or spaces."""
    words = data.rstrip(b"\0 ").split(b"\0")
    return tuple(word.decode("utf-8", "replace") for word in words) if words != [b""] else ()


def hidepid(mounts: str, root: str) -> bool:
    """Whether /proc/self/mounts says that a /proc hides other users' processes (proc(5), hidepid)."""
    shown = [line.split() for line in mounts.splitlines()]
    options = [words[3].split(",") for words in shown if len(words) > 3 and words[1:3] == [root, "proc"]]
    found = [
        word.partition("=")[2] for word in (options[-1] if options else ()) if word.startswith("hidepid=")
    ]
    return bool(found) and found[0] not in {"0", "off"}


class ProcFS:
    """A /proc. The benchmarks and the parsers' tests give a folder that looks like one."""

    def __init__(self, root: str = "/proc") -> None:
        self.root = root
        own = self.read(os.getpid(), "status") or b""
        self._by_memory = root == "/proc" and foreign_memory.needed(own)
        self._may_trace = foreign_memory.may_trace(own)

    def must_be_ours(self) -> None:
        """Raise DagstopError if this /proc is of another pid namespace: its pids are not ours to signal."""
        try:
            seen = os.readlink(f"{self.root}/self")
        except OSError:
            seen = "nobody"
        if seen != str(os.getpid()):
            raise DagstopError(
                f"{self.root} shows another pid namespace: this is process {os.getpid()}, {self.root}/self is"
                f" {seen}. Mount the /proc of this namespace (unshare --mount-proc)"
            )

    def pids(self) -> list[int]:
        return [int(name) for name in os.listdir(self.root) if name.isdigit()]

    def read(self, pid: int, name: str) -> bytes | None:
        """The bytes of /proc/PID/NAME, or None: gone, or not ours to read."""
        try:
            return self._bytes(pid, name)
        except OSError:
            return None

    def refusal(self, pid: int, name: str) -> str | None:
        """Why /proc/PID/NAME, which `read` had no answer to, cannot be read; None if it is gone."""
        try:
            self._bytes(pid, name)
        except (FileNotFoundError, ProcessLookupError):
            return None
        except OSError as exc:
            return self._words(pid, name, exc)
        return None

    def hidden(self, pid: int) -> str:
        """Why a process that must be there is not shown: by the mount option hidepid, as a rule."""
        return self.refusal(pid, "stat") or f"/proc/{pid} is not shown: {self._lack()}"

    def _words(self, pid: int, name: str, exc: OSError) -> str:
        why = self._lack() if isinstance(exc, PermissionError) else exc.strerror
        return f"/proc/{pid}/{name} cannot be read: {why}"

    def _lack(self) -> str:
        return "refused in spite of CAP_SYS_PTRACE" if self._may_trace else "CAP_SYS_PTRACE is missing"

    def _bytes(self, pid: int | str, name: str) -> bytes:
        descriptor = os.open(f"{self.root}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            first = os.read(descriptor, 65536)
            if len(first) < 4096:
                return first
            parts = [first]
            size = len(first)
            while size < _MOST and (more := os.read(descriptor, 65536)):
                parts.append(more)
                size += len(more)
            return b"".join(parts)
        finally:
            os.close(descriptor)

    def stat(self, pid: int) -> Stat | None:
        data = self.read(pid, "stat")
        return parse_stat(data) if data else None

    def ending(self, pid: int) -> bool:
        """True if it is gone, or on its way: it frees its memory, which may take seconds, or is a zombie."""
        data = self.read(pid, "stat")
        return data is None or parse_ending(data)

    def layout(self, pid: int) -> Layout | None:
        """Of its memory; None where that is not shown, or not at random: then it proves nothing."""
        try:
            random = self._bytes("sys", "kernel/randomize_va_space").strip() not in (b"", b"0")
            random = random and not int(self._bytes(pid, "personality"), 16) & _NOT_RANDOM
            return parse_layout(self._bytes(pid, "stat")) if random else None
        except (OSError, ValueError):
            return None

    def task_folder(self, pid: int) -> str | None:
        """The private folder of a bash task that its working directory is or lies in, if it is one."""
        return parse_task_folder(self.folder(pid))

    def folder(self, pid: int) -> str:
        """Its working directory; empty where that is not shown."""
        try:
            return self._link(pid, "cwd")
        except OSError:
            return ""

    def has_terminal(self, pid: int) -> bool:
        """Whether it has, or may have, a controlling terminal (field 7 of /proc/PID/stat)."""
        return _fields(self.read(pid, "stat") or b"")[4:5] != [b"0"]

    def argv(self, pid: int) -> tuple[str, ...] | None:
        """Its words; none where it is gone, None where they may not be read."""
        data = self.read(pid, "cmdline")
        if data is None and self.refusal(pid, "cmdline"):
            return None
        return parse_argv(data or b"")

    def environ(self, pid: int) -> dict[str, str] | None:
        """What `parse_environ` finds; nothing where it is gone, None where it may not be read."""
        data = self._environ(pid)
        return None if data is None else parse_environ(data)

    def variable(self, pid: int, name: str) -> str | None:
        """One variable of a process's environment; None where it is not there, or may not be read."""
        start = f"{name}=".encode()
        for item in (self._environ(pid) or b"").split(b"\0"):
            if item.startswith(start):
                return item[len(start) :].decode("utf-8", "replace")
        return None

    def _environ(self, pid: int) -> bytes | None:
        data = self.read(pid, "environ")
        if data is None and self._by_memory:
            where, length = foreign_memory.environment_span(self.read(pid, "stat") or b"", _MOST)
            data = (foreign_memory.read(pid, where, length) if length else None) or None
        if data is None and self.refusal(pid, "environ"):
            return None
        return data or b""

    def signal_masks(self, pid: int) -> SignalMasks | None:
        data = self.read(pid, "status")
        return parse_signal_masks(data) if data else None

    def uid(self, pid: int) -> int:
        """Effective uid, or -1 if gone; by /proc/PID/status.

        The owner of /proc/PID is root for any process that made itself undumpable (proc(5)).
        """
        match = re.search(rb"^Uid:\s+\d+\s+(\d+)", self.read(pid, "status") or b"", re.MULTILINE)
        return int(match.group(1)) if match else -1

    def hides_others(self) -> bool:
        """True if this /proc shows its reader's own processes only (hidepid, without CAP_SYS_PTRACE)."""
        if self._may_trace:
            return False
        try:
            with open(f"{self.root}/self/mounts", encoding="utf-8", errors="replace") as mounts:
                return hidepid(mounts.read(), self.root)
        except OSError:
            return False

    def owner(self, pid: int) -> int:
        """Who owns /proc/PID, or -1 if it is gone; root, for a process that made itself undumpable."""
        try:
            return os.stat(f"{self.root}/{pid}").st_uid
        except OSError:
            return -1

    def pid_namespace(self, pid: int) -> tuple[str | None, str]:
        """An identifier of the process's pid namespace; or None, and why it is not known."""
        try:
            return self._link(pid, "ns/pid"), ""
        except OSError as exc:
            return None, self._words(pid, "ns/pid", exc)

    def inner_pids(self, pid: int) -> tuple[int, ...]:
        """Its pid in our pid namespace and in each one below, down to its own (NSpid); empty if unknown."""
        match = re.search(rb"^NSpid:([ \t0-9]+)", self.read(pid, "status") or b"", re.MULTILINE)
        return tuple(map(int, match.group(1).split())) if match else ()

    def _link(self, pid: int, name: str) -> str:
        return os.readlink(f"{self.root}/{pid}/{name}")

    def comm(self, pid: int) -> str:
        return (self.read(pid, "comm") or b"").decode("utf-8", "replace").rstrip("\n")

    def cgroups(self, pid: int) -> str:
        """/proc/PID/cgroup: the paths that a container engine named after the container's id."""
        return (self.read(pid, "cgroup") or b"").decode("utf-8", "replace")

    def boot_id(self) -> str:
        """Differs after each boot of the host, where start times count from, and in each container:
        with its pid namespace what a pid means changes too.
        """
        try:
            with open(f"{self.root}/sys/kernel/random/boot_id", encoding="ascii") as handle:
                boot = handle.read().strip()
            return f"{boot} {os.readlink(f'{self.root}/self/ns/pid')}"
        except (OSError, ValueError):
            return ""

    def age(self, start: int) -> float:
        """Seconds since a process with that start time started; exact to a tick (10 ms)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - start / TICKS_PER_SECOND

    def now_ticks(self) -> int:
        """The present moment on the scale of `Identity.start` (CLOCK_BOOTTIME, proc(5))."""
        return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_PER_SECOND)
