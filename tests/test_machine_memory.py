"""What a process may take: of the system, and of every control group around it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from packager.cgroup import groups
from packager.cores import cores
from targets.machine.limits import memory
from tests.support.machine_tree import lay, version_1, version_2

GB = 10**9
SENTINEL = 9223372036854771712


def meminfo(total: int, available: int, swap: int = 0) -> str:
    return (
        f"MemTotal:       {total // 1024} kB\nMemFree:  {available // 2048} kB\nMemAvailable:   "
        f"{available // 1024} kB\n"
        f"SwapTotal: {swap // 1024} kB\nSwapFree: {swap // 1024} kB\nHugePages_Total:       0\n"
    )


def group_2(folder: str, limit: str, current: int = 0, inactive: int = 0) -> dict[str, str]:
    base = f"sys/fs/cgroup/{folder}".rstrip("/")
    return {
        f"{base}/memory.max": f"{limit}\n",
        f"{base}/memory.current": f"{current}\n",
        f"{base}/memory.stat": f"anon {current}\nfile 0\ninactive_file {inactive}\nactive_file 0\n",
    }


def group_1(folder: str, limit: int, usage: int = 0, inactive: int = 0) -> dict[str, str]:
    base = f"sys/fs/cgroup/memory/{folder}".rstrip("/")
    return {
        f"{base}/memory.limit_in_bytes": f"{limit}\n",
        f"{base}/memory.usage_in_bytes": f"{usage}\n",
        f"{base}/memory.stat": f"cache 1\ninactive_file 1\ntotal_inactive_file {inactive}\n",
    }


def test_without_control_groups_the_system_says_what_is_available(tmp_path: Path) -> None:
    seen = memory(lay(tmp_path, {"proc/meminfo": meminfo(16 * GB, 9 * GB)}))
    assert (seen.total // 1024, seen.available // 1024, seen.limited_by) == (
        16 * GB // 1024,
        9 * GB // 1024,
        "system",
    )


def test_swap_counts_for_nothing(tmp_path: Path) -> None:
    assert (
        memory(lay(tmp_path, {"proc/meminfo": meminfo(16 * GB, GB, swap=32 * GB)})).available <= GB
    )


def test_no_free_memory_is_zero_and_not_an_error(tmp_path: Path) -> None:
    assert memory(lay(tmp_path, {"proc/meminfo": meminfo(16 * GB, 0)})).available == 0


def test_a_kernel_without_memavailable_is_read_by_free_and_cached(tmp_path: Path) -> None:
    text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 20 kB\nCached: 300 kB\nShmem: 50 kB\n"
    assert memory(lay(tmp_path, {"proc/meminfo": text})).available == 370 * 1024


def test_a_group_of_version_2_limits_with_its_droppable_cache_counted_as_free(
    tmp_path: Path,
) -> None:
    root = lay(
        tmp_path,
        {
            "proc/meminfo": meminfo(16 * GB, 9 * GB),
            **version_2(),
            **group_2("user.slice/app", str(4 * GB), 3 * GB, 2 * GB),
        },
    )
    seen = memory(root)
    assert (seen.total, seen.available, seen.limited_by) == (4 * GB, 3 * GB, "cgroup")


def test_max_is_no_limit(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        {
            "proc/meminfo": meminfo(16 * GB, 9 * GB),
            **version_2(),
            **group_2("user.slice/app", "max", 3 * GB),
        },
    )
    assert memory(root).limited_by == "system"


def test_a_parent_with_a_tighter_limit_wins_with_what_its_other_children_use(
    tmp_path: Path,
) -> None:
    root = lay(
        tmp_path,
        {
            "proc/meminfo": meminfo(16 * GB, 9 * GB),
            **version_2("/a/b/c"),
            **group_2("a/b/c", str(8 * GB), GB),
            **group_2("a/b", "max", 2 * GB),
            **group_2("a", str(6 * GB), 5 * GB, GB // 2),
        },
    )
    seen = memory(root)
    assert (seen.total, seen.available) == (6 * GB, 6 * GB - 5 * GB + GB // 2)


def test_a_container_with_a_namespace_sees_its_limits_at_the_mount(tmp_path: Path) -> None:
    for number, path in enumerate(("/", "/../..", "/docker/abc")):
        root = lay(
            tmp_path / str(number),
            {
                "proc/meminfo": meminfo(16 * GB, 9 * GB),
                **version_2(path, shown="/"),
                **group_2("", str(2 * GB), GB),
            },
        )
        assert memory(root).available == GB


def test_a_container_without_a_namespace_is_found_below_the_part_that_is_mounted(
    tmp_path: Path,
) -> None:
    root = lay(
        tmp_path,
        {
            "proc/meminfo": meminfo(16 * GB, 9 * GB),
            **version_1("/docker/abc", shown="/docker/abc"),
            **group_1("", 2 * GB, GB),
        },
    )
    assert memory(root).available == GB


def test_a_group_of_version_1_limits_in_the_same_way(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        {
            "proc/meminfo": meminfo(16 * GB, 9 * GB),
            **version_1(),
            **group_1("docker/abc", 4 * GB, 3 * GB, 2 * GB),
        },
    )
    assert memory(root).available == 3 * GB


def test_the_sentinel_of_version_1_is_no_limit(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        {
            "proc/meminfo": meminfo(16 * GB, 9 * GB),
            **version_1(),
            **group_1("docker/abc", SENTINEL, 3 * GB),
        },
    )
    assert memory(root).limited_by == "system"


def test_a_parent_of_version_1_is_walked_too(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        {
            "proc/meminfo": meminfo(16 * GB, 9 * GB),
            **version_1(),
            **group_1("docker/abc", SENTINEL),
            **group_1("docker", 3 * GB, GB),
        },
    )
    assert memory(root).available == 2 * GB


def test_a_hybrid_machine_is_limited_by_either_version(tmp_path: Path) -> None:
    files = {"proc/meminfo": meminfo(16 * GB, 9 * GB), **version_1("/a")}
    files["proc/self/cgroup"] = "4:memory:/a\n0::/a\n"
    files |= group_1("a", 4 * GB) | {
        name.replace("cgroup/", "cgroup/unified/", 1): text
        for name, text in group_2("a", str(2 * GB)).items()
    }
    assert memory(lay(tmp_path, files)).available == 2 * GB


def test_a_group_used_beyond_its_limit_leaves_nothing(tmp_path: Path) -> None:
    root = lay(
        tmp_path,
        {
            "proc/meminfo": meminfo(16 * GB, 9 * GB),
            **version_2(),
            **group_2("user.slice/app", str(GB), 3 * GB),
        },
    )
    assert memory(root).available == 0


def test_a_mount_point_with_a_space_is_found(tmp_path: Path) -> None:
    files = version_2("/app")
    files["proc/self/mountinfo"] = "35 24 0:30 / /my\\040groups rw - cgroup2 cgroup2 rw\n"
    files |= {
        "my groups/app/memory.max": str(GB),
        "my groups/app/memory.current": "0",
        "proc/meminfo": meminfo(16 * GB, 9 * GB),
    }
    assert memory(lay(tmp_path, files)).available == GB


def test_without_proc_the_system_is_asked_through_psutil(tmp_path: Path) -> None:
    import psutil

    seen = memory(tmp_path)
    assert seen.total == psutil.virtual_memory().total
    assert 0 < seen.available <= seen.total


def test_this_machine_has_some_memory_and_no_more_than_it_has() -> None:
    seen = memory()
    assert 0 <= seen.available <= seen.total


NUMBERS = st.integers(0, 2**70).map(str)
NOISE = st.one_of(
    NUMBERS,
    st.sampled_from(["max", "-1", "", "  ", "12 34", "x", "9223372036854771712"]),
    st.text(max_size=30),
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
    deadline=None,
)
@given(NOISE, NOISE, NOISE, st.text(max_size=80), st.text(max_size=80))
def test_whatever_the_files_hold_the_answer_is_a_number_within_bounds(
    tmp_path: Path, limit: str, current: str, stat: str, mounts: str, own: str
) -> None:
    files = version_2("/a") | {"proc/meminfo": meminfo(16 * GB, 9 * GB)}
    files |= {"sys/fs/cgroup/a/memory.max": limit, "sys/fs/cgroup/a/memory.current": current}
    files |= {
        "sys/fs/cgroup/a/memory.stat": f"inactive_file {stat}\n{stat}",
        "sys/fs/cgroup/a/cpu.max": f"{limit} {current}",
    }
    files["proc/self/mountinfo"] += mounts
    files["proc/self/cgroup"] += own
    root = lay(
        tmp_path, {name: text.encode("utf-8", "replace").decode() for name, text in files.items()}
    )
    seen = memory(root)
    assert 0 <= seen.available <= seen.total <= 16 * GB
    assert 1 <= cores(root, range(8)).at_once <= 8
    list(groups(root, "memory"))


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=60,
    deadline=None,
)
@given(st.text(max_size=200))
def test_a_meminfo_of_any_content_is_read_or_passed_over(tmp_path: Path, text: str) -> None:
    seen = memory(lay(tmp_path, {"proc/meminfo": text}))
    assert 0 <= seen.available <= seen.total
