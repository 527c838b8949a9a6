"""OpenVINO for packages that take sound, with the engine of the runtime's own, whose modules an
export holds as well."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Any

from .settings import Settings

# Any: modules that are named here and imported when they are needed.

_ENGINE = "targets.openvino.hearing_serving"


def opened(settings: Settings, unit: str) -> Any:
    """The engine of a package. Raises ImportError where a module is missing that a request
    needs."""
    for name in ("soundfile", "soxr"):
        # Missed now, and not by the first request.
        import_module(name)
    return import_module(_ENGINE).Engine(settings, unit, Path(os.devnull))


Engine = opened
"""What the server asks each of these modules for."""
