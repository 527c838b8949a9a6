"""What an adapter states without its engine: names, recipes, sizes. Nothing is built here."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from typing import Any

from packager import catalog
from packager.errors import ExitCode, PackError
from packager.hearing import Hears, HearsApart
from packager.need.workload import workload_for
from packager.package.adapters import Adapts
from packager.parts import missing, refusal
from packager.predict.forecast import Speed
from packager.predict.memory import Footprint
from packager.predict.offload import Offloads
from packager.python import python_command, python_environment
from packager.quality.thresholds import grades
from packager.recipe import Recipe, split_id
from packager.runtime import Drafts, Retrieves, Runtime, Sees, Serves
from packager.shape import Shape

_SHORT, _LONG = 512, 4096
_ISAS = ("x86_64 avx2", "aarch64 neon dotprod", "riscv64")
_NOT_A_RECIPE = "no-such-weights"
PARTS = (Sees, Hears, HearsApart, Retrieves, Drafts, Serves, Adapts, Offloads)
"""What an adapter may have besides."""
_DOTTED = ("vision_session", "audio_session", "retrieval_session", "serving_engine", "adapter_job")
"""Members of them that name something in a module."""
_UNITS = {"cpu", "gpu", "npu"}


def problems(adapter: Any) -> list[str]:
    """Every breach as a sentence; an empty list where the adapter keeps the contract.

    Asks for every recipe and the smallest variant of every architecture. Needs no engine.
    """
    if not isinstance(adapter, Runtime):
        return [f"{type(adapter).__name__} lacks {', '.join(missing(adapter, Runtime))}."]
    breaches = [*_names(adapter), *_parts(adapter), *_recipes(adapter)]
    if not breaches:
        breaches = list(_sizes(adapter))
    return [*breaches, *_engines_imported(adapter)]


def _names(adapter: Runtime) -> Iterator[str]:
    if not adapter.name:
        yield "name is empty."
    try:
        split_id(f"{adapter.prefix}:weights")
    except PackError:
        yield f"prefix {adapter.prefix!r} cannot begin the name of a recipe."
    for member in ("build_job", "session", *_DOTTED):
        if not hasattr(adapter, member):
            continue
        dotted = str(getattr(adapter, member))
        module, colon, attribute = dotted.partition(":")
        if not (module and colon and attribute):
            yield f"{member} {dotted!r} is not written module:name."
        elif not _exists(module):
            yield f"{member} names the module {module}, which is not there."


def _parts(adapter: Runtime) -> Iterator[str]:
    """What an adapter can besides is asked for as a whole: with one member missing it is as if
    none were there."""
    for part in PARTS:
        error = refusal(adapter, part)
        if error is not None:
            yield error.message
    for member in ("pictures_on", "sounds_on"):
        units = getattr(adapter, member, ())
        if isinstance(units, str) or not set(units) <= _UNITS:
            yield f"{member} is {units!r}, not a tuple of {', '.join(sorted(_UNITS))}."


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _recipes(adapter: Runtime) -> Iterator[str]:
    recipes = adapter.recipes()
    if not recipes:
        yield "recipes() is empty."
    if len({recipe.id for recipe in recipes}) != len(recipes):
        yield "two recipes have the same id."
    for recipe in recipes:
        yield from (f"{recipe.id}: {wrong}" for wrong in _recipe(adapter, recipe))
    try:
        adapter.recipe(_NOT_A_RECIPE)
        yield f"recipe({_NOT_A_RECIPE!r}) gives a recipe; it must raise PackError."
    except PackError as error:
        if error.exit_code != ExitCode.USAGE:
            yield f"recipe({_NOT_A_RECIPE!r}) raises exit code {error.exit_code:d}, not 2."
    except Exception as error:
        yield f"recipe({_NOT_A_RECIPE!r}) raises {type(error).__name__}, not PackError."


def _recipe(adapter: Runtime, recipe: Recipe) -> Iterator[str]:
    if (recipe.runtime, recipe.prefix) != (adapter.name, adapter.prefix):
        yield f"belongs to {recipe.runtime} ({recipe.prefix}:), not to this runtime."
    if adapter.recipe(recipe.weights) != recipe:
        yield f"recipe({recipe.weights!r}) gives another recipe."
    if not recipe.summary:
        yield "has no summary."
    if recipe.grade is not None and recipe.grade not in grades():
        yield f"grade {recipe.grade!r} is not one of {', '.join(grades())}."
    try:
        same = json.loads(json.dumps(recipe.settings)) == recipe.settings
    except TypeError:
        same = False
    if not same:
        yield "its settings are not JSON; they go into the manifest as they are."


def smallest_shapes() -> dict[str, Shape]:
    """The shape of the smallest variant of every architecture in the catalogue, by model type."""
    variants = [variant for variant in catalog.load() if variant.shape is not None]
    by_size = sorted(variants, key=lambda variant: variant.params_total or 0, reverse=True)
    return {
        variant.shape.model_type: variant.shape for variant in by_size if variant.shape is not None
    }


def _sizes(adapter: Runtime) -> Iterator[str]:
    built = 0
    for model_type, shape in smallest_shapes().items():
        for recipe in adapter.recipes():
            wrong: list[str] = []
            try:
                obstacle = adapter.obstacle(shape, recipe)
                if obstacle is None:
                    built += 1
                    for text in _size(adapter, shape, recipe):
                        wrong.append(text)  # noqa: PERF402 - what came before an error stays
                elif not obstacle.strip():
                    wrong.append("the obstacle is an empty text.")
            except PackError as error:
                wrong.append(f"{error.message} That is for obstacle() to say.")
            except Exception as error:
                wrong.append(f"raises {type(error).__name__}: {error}.")
            yield from (f"{recipe.id} of {model_type}: {text}" for text in wrong)
    if not built:
        yield "every recipe has an obstacle for every architecture: nothing can be built."


def _size(adapter: Any, shape: Shape, recipe: Recipe) -> Iterator[str]:
    size = adapter.artifact_bytes(shape, recipe)
    if not isinstance(size, int) or size <= 0:
        yield f"artifact_bytes is {size!r}, not a number of bytes."
    elif not 0 < adapter.least_file_bytes(shape, recipe) <= size:
        yield "least_file_bytes is not between 1 and artifact_bytes."
    short, long = (adapter.footprint(shape, recipe, context) for context in (_SHORT, _LONG))
    if not isinstance(short, Footprint):
        yield "footprint is not a Footprint."
    elif not 0 < short.peak <= long.peak:
        yield "footprint does not grow with the context."
    reads = [adapter.decode_bytes(shape, recipe, context) for context in (_SHORT, _LONG)]
    if not 0 < reads[0] <= reads[1]:
        yield "decode_bytes does not grow with the context."
    if not all(isinstance(adapter.speed(shape, recipe, isa), Speed) for isa in _ISAS):
        yield "speed is not a Speed for every instruction set."
    needs = adapter.build_needs(shape, recipe)
    if needs.memory < 0 or needs.disk < 0:
        yield "build_needs has a negative number of bytes."
    if not adapter.tools(shape, recipe).distributions and adapter.distributions:
        yield "tools() names no distributions, so that the manifest would hold no versions."
    workload = {**workload_for("chat").as_dict(), "gpu_layers": 0, "files": ["model/model.bin"]}
    if not adapter.how_to_run(recipe, workload).strip():
        yield "how_to_run is empty: the package's README would not say how to run it."


def _engines_imported(adapter: Runtime) -> Iterator[str]:
    """What importing the adapter's module loads of its own distributions, in an interpreter of its
    own: `--help` and `fit` import every adapter."""
    module = type(adapter).__module__
    loaded, said = _imported_by(module)
    if loaded is None:
        yield f"the module {module} does not import by itself: {said}"
        return
    ours = _base_distributions()
    for package, distributions in _packages().items():
        names = {_normal(name) for name in distributions} - ours
        if package in loaded and names & {_normal(name) for name in adapter.distributions}:
            yield f"importing {module} imports {package}: import engines inside functions."


@cache
def _imported_by(module: str) -> tuple[frozenset[str] | None, str]:
    """The top-level names of all modules that importing one loads; None where it does not import,
    and what Python says then. Several adapters may share a module."""
    run = subprocess.run(
        python_command("packager.contract.imported", module),
        env=python_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode != 0:
        return None, " ".join(run.stderr.strip().splitlines()[-1:])
    return frozenset(json.loads(run.stdout)), ""


@cache
def _packages() -> Mapping[str, list[str]]:
    """The distributions of every top-level name, for which all that is installed is looked
    through."""
    return metadata.packages_distributions()


def _base_distributions() -> set[str]:
    """What the base install has anyway."""
    lines = metadata.requires("qwen-pack") or []
    matches = (re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line)
    return {_normal(match[0]) for match in matches if match}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
