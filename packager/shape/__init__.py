"""The exact shape of a Qwen checkpoint: what its config.json says, and the tensors that follow from
it.

Shape.from_config(config, "config.json")     any generation, text or the text decoder of a vision,
audio or omni model tensors(shape)                               every tensor of the text decoder,
by its name on the hub
"""

from __future__ import annotations

from packager.shape.decoder import Shape
from packager.shape.first_generation import as_qwen2
from packager.shape.model import TASKS, Experts, Hybrid
from packager.shape.names import FIRST_GENERATION, KNOWN_TYPES
from packager.shape.tensors import TensorSpec, tensors
from packager.shape.tower import Tower

__all__ = [
    "FIRST_GENERATION",
    "KNOWN_TYPES",
    "TASKS",
    "Experts",
    "Hybrid",
    "Shape",
    "TensorSpec",
    "Tower",
    "as_qwen2",
    "tensors",
]
