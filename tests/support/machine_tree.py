"""Directory trees of /proc and /sys that play a machine."""

from __future__ import annotations

from pathlib import Path


def lay(root: Path, files: dict[str, str]) -> Path:
    """A directory tree that plays the machine."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(path: str = "/user.slice/app", shown: str = "/") -> dict[str, str]:
    return {
        "proc/self/cgroup": f"0::{path}\n",
        "proc/self/mountinfo": f"35 24 0:30 {shown} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 "
        "cgroup2 rw,nsdelegate\n",
    }


def version_1(path: str = "/docker/abc", shown: str = "/") -> dict[str, str]:
    return {
        "proc/self/cgroup": f"9:name=systemd:/\n4:memory:{path}\n1:cpu,cpuacct:{path}\n0::/\n",
        "proc/self/mountinfo": (
            f"35 31 0:32 {shown} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
            f"36 31 0:33 {shown} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
        ),
    }
