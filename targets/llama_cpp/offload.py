"""What llama.cpp keeps on a GPU and what in the system's memory when it is told to offload some
layers.

The option counts from the end: the output matrix is the first to go onto the GPU, then the layers
from the last one down. The embedding always stays in the system's memory; where it serves as output
too, the GPU has a copy. The cache of a layer lies where the layer lies. Source: llama.cpp,
src/llama-model.cpp, load_tensors (i_gpu_start = layers + 1 - n_gpu_layers).
"""

from __future__ import annotations

from packager.predict.memory import Footprint, kv_cache_bytes, recurrent_state_bytes
from packager.predict.offload import Split
from packager.recipe import Recipe
from packager.shape import Shape
from targets.gguf.layers import Layers, read_of
from targets.llama_cpp import memory

_FLOAT, _HALF = 4, 2


def split(
    shape: Shape, recipe: Recipe, found: Layers, context: int, filled: int, gpu_layers: int
) -> Split:
    """See packager.predict.offload.Offloads."""
    every = shape.layers + 1
    wanted = max(0, min(gpu_layers, every))
    first = shape.layers + 1 - wanted if wanted else shape.layers
    weights = found.layer_bytes()
    embedding, output = sum(found.embedding.values()), sum(found.output.values())
    head = (embedding if shape.tied else 0) + output if wanted else 0
    behind, caches = sum(weights[:first]), _caches(shape, recipe, memory.padded_context(context))
    filled_caches = _caches(shape, recipe, filled)
    constants = memory.constants()
    # A prompt's batch brings the matrices that stay behind to the GPU one by one; one layer is more
    # than the largest of them.
    visiting = max(weights[:first], default=0) if wanted else 0
    # A vision tower lies on the GPU as a whole, or not at all.
    seeing = memory.tower_weights(shape, recipe), memory.tower_compute(shape)
    tower, picture = seeing if wanted else (0, 0)
    device = Footprint(
        sum(weights[first:]) + head + tower,
        sum(caches[first:]),
        _graph(shape, context) + visiting + picture if wanted else 0,
        0,
    )
    host = Footprint(
        behind + embedding + (0 if wanted else output + seeing[0]),
        sum(caches[:first]),
        memory.activations(shape, context) + (0 if wanted else seeing[1]),
        memory.overhead(shape) + (constants["offload"]["host_bytes"] if wanted else 0),
    )
    read = found.layer_reads(shape)
    head_read = read_of(shape, found.output) + (
        read_of(shape, found.embedding) if shape.tied else 0
    )
    return Split(
        gpu_layers=wanted,
        all_layers=every,
        device=device,
        host=host,
        device_read=sum(read[first:]) + sum(filled_caches[first:]) + (head_read if wanted else 0),
        host_read=sum(read[:first]) + sum(filled_caches[:first]) + (0 if wanted else head_read),
        host_weights=behind,
    )


def _caches(shape: Shape, recipe: Recipe, tokens: int) -> list[int]:
    """Bytes that each layer keeps about `tokens` tokens: keys and values, or the state of a
    recurrent layer."""
    attention = (
        kv_cache_bytes(shape, tokens, recipe.kv_bits) - recurrent_state_bytes(shape)
    ) // max(1, shape.attention_layers)
    if not shape.recurrent_layers:
        return [attention] * shape.layers
    state = recurrent_state_bytes(shape) // shape.recurrent_layers
    return [attention if shape.full_attention(number) else state for number in range(shape.layers)]


def _graph(shape: Shape, context: int) -> int:
    """The compute buffer on the GPU: the logits of a whole batch, which are allocated there, or the
    widest layer; and the mask.

    Held against the buffers that the library reports for the same graph on a processor:
    docs/measurements/footprint.md.
    """
    batch: int = min(memory.constants()["batch"], context)
    logits = batch * _FLOAT * (shape.vocab + 2 * shape.hidden + shape.heads * shape.head_dim)
    return max(logits, memory.activations(shape, context)) + _HALF * batch * memory.padded_context(
        context
    )
