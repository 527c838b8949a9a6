"""The vision tower of an artifact by itself: its graphs compiled by openvino, fed as VLMPipeline of
openvino-genai feeds them (src/cpp/src/visual_language, qwen2vl, qwen2_5_vl and qwen3_vl)."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import openvino
from numpy.typing import NDArray

from packager.checkpoint.folder import read_json
from packager.errors import bad_input
from packager.json_values import JsonObject, list_at
from packager.shape import Shape
from packager.shape.tower import CHANNELS, FRAMES, MERGE, WINDOW, WINDOWED, Tower, tower_of
from targets.openvino import pixels, seeing
from targets.openvino.scorer import threads_of
from targets.openvino.shared_core import shared_core

Arrays: TypeAlias = dict[str, NDArray[Any]]
"""What a graph takes or gives, by name."""
_THETA = 10_000.0


class ImageEncoder:
    """The compiled graphs. Raises PackError (bad input) for an artifact without them."""

    def __init__(self, artifact: Path, settings: JsonObject) -> None:
        self._tower = tower_in(artifact)
        _, table = pixels.read(artifact)
        self._mean, self._deviation = (
            np.asarray(list_at(table, key), np.float32) for key in ("image_mean", "image_std")
        )
        self._graphs: dict[str, openvino.InferRequest] = {}
        for name in seeing.graphs_of(self._tower):
            if not (artifact / name).is_file():
                raise bad_input(f"{artifact} holds no {name}.", "Build the package again.")
            compiled = shared_core().compile_model(artifact / name, "CPU", threads_of(settings))
            self._graphs[name] = compiled.create_infer_request()

    def encode(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.float32], float]:
        """(tokens, width x (1 + layers of DeepStack)) of a picture (height, width, 3), whose sides
        are whole tokens, and the seconds that the graphs took. Raises PackError (exit code 6) for
        other sides."""
        tower, patch = self._tower, self._tower.patch
        height, width, _ = picture.shape
        side = tower.pixels_per_token
        if height % side or width % side:
            raise bad_input(
                f"A picture of {width} x {height} pixels is not whole tokens of {side} x {side}.",
                "Take one whose sides are multiples of that.",
            )
        rows, columns = height // patch, width // patch
        flat = self._patches(picture, rows, columns)
        given = self._beside(rows, columns)
        places = _places(rows, columns, tower) if tower.positions else None
        began = time.perf_counter()
        state = self._infer(seeing.PATCHES, {"hidden_states": flat})["last_hidden_state"]
        if places is not None:
            state = state + self._learned(*places)
        out = self._infer(seeing.MERGER, {"hidden_states": state, **given})
        seconds = time.perf_counter() - began
        deep = out.get("deepstack_feature_lists", ())
        return np.concatenate([out["last_hidden_state"], *deep], axis=-1), seconds

    def _patches(self, picture: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.float32]:
        """(patches, colours x pictures x side x side), those of a token behind one another; one
        picture counts twice."""
        patch = self._tower.patch
        values = (picture.astype(np.float32) / 255 - self._mean) / self._deviation
        values = values.reshape(
            rows // MERGE, MERGE, patch, columns // MERGE, MERGE, patch, CHANNELS
        ).transpose(0, 3, 1, 4, 6, 2, 5)
        flat = values.reshape(rows * columns, CHANNELS, 1, patch, patch)
        twice = np.repeat(flat, FRAMES, axis=2).reshape(rows * columns, -1)
        return np.ascontiguousarray(twice, np.float32)

    def _beside(self, rows: int, columns: int) -> Arrays:
        """Masks, angles and the order of windows of one picture."""
        tower, count = self._tower, rows * columns
        each = tower.hidden // tower.heads // 4
        rates = (1 / _THETA ** (np.arange(each) / each)).astype(np.float32)
        grid = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1)
        turns = in_tokens(grid).astype(np.float32)[:, :, None] * rates
        given: Arrays = {
            "attention_mask": np.zeros((1, count, count), np.float32),
            "rotary_pos_emb": np.ascontiguousarray(turns.reshape(count, -1)),
        }
        if tower.generation in WINDOWED:
            number = _window_of(rows // MERGE, columns // MERGE, WINDOW // tower.pixels_per_token)
            order = np.argsort(number, kind="stable")
            patches = np.repeat(number[order], MERGE * MERGE)
            apart = patches[:, None] != patches[None]
            given["window_index"] = order.astype(np.int64)
            given["window_attention_mask"] = np.where(apart, -np.inf, 0).astype(np.float32)[None]
        return given

    def _learned(
        self, numbers: NDArray[np.int64], parts: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(patches, hidden): the four neighbours of each patch on the learned grid, mixed."""
        corners = self._infer(seeing.POSITIONS, {"input": numbers})["last_hidden_state"]
        mixed: NDArray[np.float32] = (corners * parts[:, :, None]).sum(0, dtype=np.float32)
        return mixed

    def _infer(self, name: str, given: Arrays) -> Arrays:
        request = self._graphs[name]
        request.infer(given)
        ports = request.get_compiled_model().outputs
        return {port.get_any_name(): request.get_tensor(port).data.copy() for port in ports}


def tower_in(artifact: Path) -> Tower:
    """The tower that the artifact's config.json describes. Raises PackError (bad input)."""
    path = artifact / "config.json"
    if not path.is_file():
        raise bad_input(f"{artifact} holds no config.json.", "Build the package again.")
    config = read_json(path)
    return tower_of(config, Shape.from_config(config, str(path)), str(path))


def in_tokens(values: NDArray[Any]) -> NDArray[Any]:
    """(rows, columns, ...) of patches as (patches, ...), those of a token behind one another."""
    rows, columns = values.shape[:2]
    rest = values.shape[2:]
    values = values.reshape(rows // MERGE, MERGE, columns // MERGE, MERGE, *rest)
    return values.swapaxes(1, 2).reshape(rows * columns, *rest)


def _window_of(rows: int, columns: int, side: int) -> NDArray[np.intp]:
    """The number of each token's window, row by row."""
    across = -(-columns // side)
    place = np.add.outer(np.arange(rows) // side * across, np.arange(columns) // side)
    return place.reshape(-1)


def _places(rows: int, columns: int, tower: Tower) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(4, patches): the four places of the learned grid around each patch, and their parts."""
    side = math.isqrt(tower.positions)
    low_y, high_y, part_y = _between(rows, side)
    low_x, high_x, part_x = _between(columns, side)
    corners = [
        (y, x, share_y, share_x)
        for y, share_y in ((low_y, 1 - part_y), (high_y, part_y))
        for x, share_x in ((low_x, 1 - part_x), (high_x, part_x))
    ]
    numbers = [in_tokens(np.add.outer(y * side, x)) for y, x, _, _ in corners]
    parts = [in_tokens(np.multiply.outer(one, other)) for _, _, one, other in corners]
    return np.stack(numbers).astype(np.int64), np.stack(parts).astype(np.float32)


def _between(count: int, side: int) -> tuple[Any, Any, Any]:
    """Where `count` patches lie on a grid of `side` places: the place below, the one above, and how
    far they are from the one to the other."""
    place = np.linspace(0, side - 1, count, dtype=np.float32)
    low = place.astype(np.int64)
    return low, np.minimum(low + 1, side - 1), place - low
