"""Every engine is started as it was found to work on this processor, in the processes of the tests
as well as in their children."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from packager.engine_check import store
from packager.engines import missing_engine
from packager.errors import PackError
from packager.pipeline import climb
from targets import registry

ORDER = ("onnxruntime", "llama.cpp", "openvino")
"""A later one's variables win: what caps OpenVINO's kernels is read by torch as well, which only
ONNX Runtime's conversion runs on."""


def kept(config: pytest.Config) -> Path:
    """Where outcomes are kept from one run of the tests to the next: not in the cache of the person
    who runs them."""
    cache = getattr(config, "cache", None)
    return (
        Path(cache.mkdir("engines"))
        if cache
        else Path(tempfile.gettempdir()) / f"qwen-pack-engines-{os.getuid()}"
    )


def find_out() -> dict[str, str]:
    """The variables of all engines together. An engine that is right in no way adds none: its tests
    fail and say so."""
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(len(ORDER)) as pool:
        before = os.environ.get("QWEN_PACK_CACHE")
        os.environ["QWEN_PACK_CACHE"] = cache
        try:
            found = list(pool.map(_variables, ORDER))
        finally:
            os.environ.pop("QWEN_PACK_CACHE")
            if before is not None:
                os.environ["QWEN_PACK_CACHE"] = before
    return {name: value for variables in found for name, value in variables.items()}


def _variables(name: str) -> dict[str, str]:
    runtime = registry.runtime(name)
    if missing_engine(runtime) is not None:
        return {}
    work = climb.climb(runtime)
    try:
        while True:
            next(work)
    except StopIteration as stop:
        return dict(stop.value.environment)
    except PackError as error:
        print(f"\n{error}")
        return {}


def set_variables(config: pytest.Config) -> None:
    """Once, in the process that starts the workers: they inherit what is set here."""
    if os.environ.get(store.FOLDER) is None:
        os.environ[store.FOLDER] = str(kept(config))
        os.environ.update(find_out())
