"""Which engines and tools are installed, and the line that installs one."""

from __future__ import annotations

from importlib import metadata

from packager.errors import PackError, usage
from packager.runtime import InstallsItself, Runtime, Tools


def installed(distribution: str) -> str | None:
    """The installed version of a distribution; None when it is not there."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
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
