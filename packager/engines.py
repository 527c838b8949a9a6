"""Which engines, tools and plug-ins are installed, and the line that installs one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import metadata

from packager.errors import PackError, usage
from packager.runtime import InstallsItself, Runtime, Tools

_ENTRY_POINTS = "entry_points.txt"


def installed(distribution: str) -> str | None:
    """The installed version of a distribution; None when it is not there."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def plug_ins(group: str, *, refuse_broken: bool = True) -> Iterator[metadata.EntryPoint]:
    """What importlib.metadata.entry_points gives for a group, in a third of its time: of most
    distributions nothing is parsed. One that is found by two ways comes twice.

    Raises PackError (usage) for a distribution of the group whose list cannot be read; with
    `refuse_broken` off it is passed over, as is a list of any other distribution.
    """
    for distribution in metadata.distributions():
        try:
            brings = group in (distribution.read_text(_ENTRY_POINTS) or "")
        except (OSError, ValueError):
            # Not UTF-8: whose it is, it is none of ours.
            continue
        if not brings:
            continue
        name = _name_of(distribution)
        try:
            # The first of a name on the path counts, as it does for imports, whatever it brings.
            first = metadata.distribution(name) if name else distribution
            yield from first.entry_points.select(group=group)
        except (OSError, TypeError, ValueError):
            # A line without `=` is a TypeError of importlib's own.
            if refuse_broken:
                raise usage(
                    f"What {name or 'a distribution'} brings cannot be read: its "
                    f"{_ENTRY_POINTS} is not valid.",
                    "Install it again, remove it, or set QWEN_PACK_PLUGINS=0.",
                ) from None


def plug_ins_by_name(
    group: str,
    counts: Callable[[metadata.EntryPoint], bool] = lambda point: True,
    *,
    refuse_broken: bool = True,
) -> dict[str, metadata.EntryPoint]:
    """Those plug-ins of a group that count, each name once: an editable installation can be found
    by two ways, and two distributions may bring the same name. Raises PackError as `plug_ins`."""
    points = filter(counts, plug_ins(group, refuse_broken=refuse_broken))
    return {
        point.name: point for point in sorted(points, key=lambda point: (point.name, point.value))
    }


def _name_of(distribution: metadata.Distribution) -> str | None:
    try:
        return next(iter(distribution.metadata.get_all("Name") or ()), None)
    except (OSError, TypeError, ValueError):
        # Without METADATA, or where it is empty, Python 3.11 reads None as a text.
        return None


def missing_engine(runtime: Runtime, tools: Tools | None = None) -> PackError | None:
    """The sentence for a runtime whose engine, or whose tools for one build, are not installed
    here; None when they are."""
    tools = tools or Tools(runtime.extra, runtime.distributions)
    missing = [name for name in tools.distributions if installed(name) is None]
    if not missing:
        return None
    return usage(
        f"{runtime.name} is not installed here ({', '.join(missing)} missing).",
        f"Install it with: {install_line(runtime, tools)}",
    )


def install_line(runtime: Runtime, tools: Tools | None = None) -> str:
    """The command that installs a runtime's engine, or its tools for one build.

    A plug-in may state its own; one that names no extra is installed by its distributions.
    """
    tools = tools or Tools(runtime.extra, runtime.distributions)
    if isinstance(runtime, InstallsItself) and runtime.install:
        return runtime.install
    if tools.extra:
        return f"pip install 'qwen-pack[{tools.extra}]'"
    return f"pip install {' '.join(tools.distributions)}"
