"""Prepared, frozen values for pictures of the screens: nothing in them depends on a machine, a
clock or a catalogue.

How the screens behave is tested with the real engine; these are for how they look.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import replace
from typing import Any

from packager.catalog import Variant
from packager.device.target import Target
from packager.errors import PackError, no_room, usage
from packager.plan.plan import Plan
from packager.predict.forecast import Forecast
from packager.predict.memory import Footprint
from packager.predict.offload import Split
from packager.recipe import Recipe
from packager.runtime import BuildNeeds
from packager.select import Candidate, Reason
from packager.select.misses import Miss
from packager.sources import Source
from targets.openvino import OpenVino
from tests.support.make_checkpoint import tiny_shape
from tests.support.tui_packages import (
    HOME as HOME,
)
from tests.support.tui_packages import (
    SHELF as SHELF,
)
from tests.support.tui_packages import (
    changed as changed,
)
from tests.support.tui_packages import (
    embedder as embedder,
)
from tests.support.tui_packages import (
    exported as exported,
)
from tests.support.tui_packages import (
    exporting as exporting,
)
from tests.support.tui_packages import (
    measured_on_the_shelf as measured_on_the_shelf,
)
from tests.support.tui_packages import (
    own_model as own_model,
)
from tests.support.tui_packages import (
    package as package,
)
from tests.support.tui_packages import (
    tried as tried,
)
from tests.support.tui_sweep_data import SWEEP_FILES as SWEEP_FILES
from tests.support.tui_sweep_data import SWEEP_HALF as SWEEP_HALF
from tests.support.tui_sweep_data import SWEEP_JOB as SWEEP_JOB
from tests.support.tui_sweep_data import SWEEP_SHOWN as SWEEP_SHOWN
from tests.support.tui_targets import BOARD as BOARD
from tests.support.tui_targets import CHAT as CHAT
from tests.support.tui_targets import GPU_DEVICE as GPU_DEVICE
from tests.support.tui_targets import HERE as HERE
from tests.support.tui_targets import LAPTOP as LAPTOP
from tests.support.tui_targets import PHONE as PHONE
from tui.ask import Ask
from tui.core import Found
from tui.outlook import Outlook
from tui.services import Services

_GB, _MB = 10**9, 10**6


def _variant(name: str, params: float, license: str | None = "apache-2.0") -> Variant:
    return Variant(
        repo_id=f"Qwen/{name}",
        family="Qwen3",
        kind="general",
        base=False,
        thinking="switch",
        model_type="qwen3",
        architecture="Qwen3ForCausalLM",
        release_date="2025-04-28",
        license=license,
        license_name=None,
        research_only=False,
        modality_in=("text",),
        modality_out=("text",),
        shape=None,
        shape_verified=True,
        assumed=(),
        params_total=round(params * 1e9),
        params_text=round(params * 1e9),
        params_active=None,
        params_vision=None,
        params_audio=None,
        params_mtp=None,
        context_native=32768,
        context_extended=131072,
        published_precisions=(),
        unbuildable=None,
        nearest=None,
        notes=(),
        sources={},
    )


_VARIANTS = [
    (_variant("Qwen3-0.6B", 0.6), 49.5),
    (_variant("Qwen3-1.7B", 1.72), 66.3),
    (_variant("Qwen3-4B", 4.02), 77.3),
]
_VARIANTS += [
    (_variant("Qwen3-8B", 8.19), 81.2),
    (_variant("Qwen3-14B", 14.8), 84.0),
    (_variant("Qwen3-32B", 32.8), 85.7),
]
_WAYS = [
    ("openvino", "openvino", "int4_sym_g128", 4.9),
    ("openvino", "openvino", "int8_asym", 8.6),
    ("llama.cpp", "gguf", "Q4_K_M", 5.4),
]
_WAYS += [("llama.cpp", "gguf", "Q8_0", 8.9), ("llama.cpp", "gguf", "Q2_K", 3.4)]


def _candidate(
    variant: Variant, quality: float, way: tuple[str, str, str, float], rank: int
) -> Candidate:
    runtime, prefix, weights, bits = way
    size = round((variant.params_total or 0) * bits / 8)
    footprint = Footprint(
        size,
        300 * _MB,
        40 * _MB,
        230 * _MB,
        load_peak=size + 640 * _MB if prefix == "openvino" else 0,
    )
    rate = 40e9 / size
    forecast = Forecast(
        round(rate * 14, 1),
        round(rate, 1),
        round(512 / rate / 14 * 1000),
        round(rate * 0.65, 1),
        round(rate * 1.35, 1),
        "same-class",
    )
    reasons = []
    if footprint.peak > 12 * _GB:
        reasons.append(
            Reason("memory", f"{footprint.peak / _GB:.1f} GB", "12.0 GB", footprint.peak, 12 * _GB)
        )
    if rate < 6:
        reasons.append(Reason("decode", "6 tok/s", f"{rate:.3g} tok/s", 6, rate))
    return Candidate(
        variant=variant,
        runtime=runtime,
        recipe=Recipe(
            runtime, prefix, weights, "u8" if prefix == "openvino" else "f16", 8.5, "summary"
        ),
        context=4096,
        verdict="rejected" if reasons else "fits",
        reasons=tuple(reasons),
        footprint=footprint,
        artifact_bytes=size,
        forecast=forecast,
        scores={"IFEval": round(quality + 3, 1), "MMLU-Redux": round(quality - 3, 1)},
        quality=quality,
        bits_per_weight=bits,
        coarse=bits < 4,
        rank=(rank, 0),
    )


def _all() -> tuple[Candidate, ...]:
    found = [
        _candidate(variant, quality, way, rank)
        for rank, way in enumerate(_WAYS)
        for variant, quality in _VARIANTS
    ]
    passing = [one for one in found if one.passes]
    unknown = replace(
        found[-1],
        variant=_variant("Qwen2-Audio-7B", 8.4, None),
        reasons=(
            Reason(
                "runtime", "a variant that openvino builds", "no runtime builds its audio encoder"
            ),
        ),
        verdict="rejected",
        sized=False,
        quality=None,
        scores={},
    )
    return (
        replace(passing[0], verdict="chosen"),
        *passing[1:],
        *(one for one in found if not one.passes),
        unknown,
    )


CANDIDATES = _all()
CHOSEN = CANDIDATES[0]
ASK = Ask(LAPTOP)
FOUND = Found(ASK, CANDIDATES, (), 0.0)
_REJECTED = tuple(
    replace(
        one,
        verdict="rejected",
        reasons=one.reasons or (Reason("memory", "1.01 GB", "500 MB", 1.01e9, 5e8),),
    )
    for one in CANDIDATES
)
NOTHING = Found(
    ASK,
    _REJECTED,
    (Miss(_REJECTED[0], "a memory limit of 1010 MB", "--max-memory-mb 1010", CHOSEN),),
    0.0,
    "None of 7 variants fits laptop-cpu for chat at a context of 4096.",
)
PLAN = Plan(
    LAPTOP,
    CHAT,
    CHOSEN,
    CANDIDATES[1:],
    OpenVino(),
    Source("hub", "Qwen/Qwen3-0.6B", None, "Qwen/Qwen3-0.6B"),
    HOME / "qwen3-0.6b-openvino-int4_sym_g128",
)


OUTLOOK = Outlook(
    {"convert": 20.0, "measure": 84.0, "quality": 61.0, "package": 0.0},
    BuildNeeds(2_900 * _MB, 3_100 * _MB),
    tuple(
        replace(
            CHOSEN,
            context=context,
            footprint=replace(CHOSEN.footprint, kv_cache=round(context / 4096 * 300 * _MB)),
            forecast=replace(
                CHOSEN.forecast, decode_tps=120 - context / 700, ttft_ms=context * 0.66
            ),
            verdict="fits" if context < 40_000 else "rejected",
            reasons=()
            if context < 40_000
            else (Reason("context", "65,536 tokens", "40,960 tokens", 65_536, 40_960),),
        )
        for context in (1024, 2048, 4096, 8192, 16384, 32768, 65536)
    ),
)
PARTLY = replace(
    next(
        one
        for one in FOUND.candidates
        if one.variant.name == "Qwen3-14B" and one.recipe.id == "gguf:Q4_K_M"
    ),
    split=Split(
        26,
        41,
        Footprint(6_300 * _MB, 190 * _MB, 40 * _MB, 300 * _MB),
        Footprint(3_700 * _MB, 110 * _MB, 40 * _MB, 200 * _MB),
        0,
        0,
        0,
    ),
    footprint=Footprint(6_300 * _MB, 190 * _MB, 40 * _MB, 300 * _MB),
)
"""A model that a GPU of 8 GB takes 26 of 41 layers of."""
WITH_GPU = replace(
    FOUND, ask=replace(FOUND.ask, target=replace(LAPTOP, name="gaming-laptop", device=GPU_DEVICE))
)
PROBLEMS = [
    usage(
        "openvino is not installed here (openvino, nncf missing).",
        "Install it with: pip install 'qwen-pack[openvino]'",
    ),
    no_room(
        "The conversion needs 4.10 GB of memory and 2.00 GB are available.",
        "Close other programs, or choose another recipe.",
    ),
]


def _embedder(name: str, params: float, quality: float, rank: int) -> Candidate:
    one = _candidate(_variant(name, params), quality, _WAYS[3], rank)
    shape = tiny_shape().for_task("embed")
    return replace(
        one,
        variant=replace(one.variant, shape=shape, kind="embedding"),
        scores={"MTEB (Multilingual)": quality},
        forecast=replace(
            one.forecast,
            ttft_low_ms=one.forecast.ttft_ms * 0.7,
            ttft_high_ms=one.forecast.ttft_ms * 1.4,
        ),
    )


EMBED = ASK.wishing(use_case="embed", dimension=512)
EMBEDDERS = (
    replace(_embedder("Qwen3-Embedding-0.6B", 0.6, 64.3, 0), verdict="chosen"),
    _embedder("Qwen3-Embedding-4B", 4.02, 69.5, 1),
)
FOUND_EMBED = Found(EMBED, EMBEDDERS, (), 0.0)
PLAN_EMBED = replace(
    PLAN,
    workload=EMBED.workload(),
    chosen=EMBEDDERS[0],
    others=EMBEDDERS[1:],
    source=Source("hub", "Qwen/Qwen3-Embedding-0.6B", None, "Qwen/Qwen3-Embedding-0.6B"),
    out=HOME / "qwen3-embedding-0.6b-gguf-q8_0",
)


def never(*_: object) -> Generator[str, None, Target]:
    """A measurement that says one sentence and then takes for ever; it ends when the screen closes
    it."""
    yield "openvino: matrix of 128 MB, 4 threads"
    waiting = threading.Event()
    while not waiting.wait(0.01):
        yield "openvino: matrix of 128 MB, 4 threads"


def refuse(*_: object) -> Any:
    """What cannot be had."""
    raise PackError(
        "The catalogue file shapes.toml, line 12: 'hidden' must be a whole number.",
        "Install qwen-pack again.",
    )


def services(**others: Any) -> Services:
    """Services that answer with the values above; `others` take the place of single ones."""
    given: dict[str, Any] = {
        "targets": lambda: (LAPTOP, PHONE, BOARD),
        "runtimes": lambda: (OpenVino(),),
        "memory": lambda: (16 * _GB, 11 * _GB),
        "known_machine": lambda: HERE,
        "measure_machine": never,
        "read_target": lambda name: LAPTOP,
        "bench_on": lambda *_: never(),
        "find": lambda _, ask: replace(FOUND, ask=ask),
        "plan": lambda *_: PLAN,
        "problems": lambda *_: [],
        "outlook": lambda *_: OUTLOOK,
        "sweep_files": lambda _: SWEEP_FILES,
        "sweep_shown": lambda *_: SWEEP_SHOWN,
        "packages": lambda _: SHELF,
        "absent": lambda *_: {},
        "unserved": lambda: frozenset(),
        "replaced": lambda plan: None,
        "underway": lambda plan: False,
        "engine_log": lambda stage: "",
        "clock": lambda: 1000.0,
        "folder": HOME,
    }
    return Services(**{**given, **others})
