"""What llama.cpp keeps on a GPU and what in the system's memory when it is told to offload some
layers.

The option counts from the end: the output matrix is the first to go onto the GPU, then the layers
from the last one down. The embedding always stays in the system's memory; where it serves as output
too, the GPU has a copy. The cache of a layer lies where the layer lies. Source: llama.cpp,
src/llama-model.cpp, load_tensors (i_gpu_start = layers + 1 - n_gpu_layers).
"""

from __future__ import annotations

from packager.predict.memory import Footprint, kv_cache_bytes, recurrent_state_bytes
from packager.predict.offload import Split, together
from packager.recipe import Recipe
from packager.shape import Shape
from targets.gguf.layers import Layers, read_of
from targets.llama_cpp import memory

_FLOAT, _HALF = 4, 2


def split(
    shape: Shape,
    recipe: Recipe,
    by_layer: Layers,
    context: int,
    filled: int,
    gpu_layers: int,
    gpus: int = 1,
) -> Split:
    """See packager.predict.offload.Offloads."""
    every = shape.layers + 1
    wanted = max(0, min(gpu_layers, every))
    first = shape.layers + 1 - wanted if wanted else shape.layers
    weights = by_layer.layer_bytes()
    embedding, output = sum(by_layer.embedding.values()), sum(by_layer.output.values())
    head = (embedding if shape.tied else 0) + output if wanted else 0
    behind, caches = sum(weights[:first]), _caches(shape, recipe, memory.padded_context(context))
    filled_caches = _caches(shape, recipe, filled)
    constants = memory.constants()
    # A prompt's batch brings the matrices that stay behind to the GPU one by one; one layer is more
    # than the largest of them.
    visiting = max(weights[:first], default=0) if wanted else 0
    each = _each(shape, context, weights, caches, first, head, visiting, gpus if wanted else 0)
    # A vision tower lies on the GPU as a whole, on the first where there are several, or not at
    # all.
    seeing = memory.tower_weights(shape, recipe), memory.tower_compute(shape)
    if wanted:
        each = (together((each[0], Footprint(seeing[0], 0, seeing[1], 0))), *each[1:])
    host = Footprint(
        behind + embedding + (0 if wanted else output + seeing[0]),
        sum(caches[:first]),
        memory.activations(shape, context) + (0 if wanted else seeing[1]),
        memory.overhead(shape) + (constants.offload["host_bytes"] if wanted else 0),
    )
    read = by_layer.layer_reads(shape)
    head_read = read_of(shape, by_layer.output) + (
        read_of(shape, by_layer.embedding) if shape.tied else 0
    )
    return Split(
        gpu_layers=wanted,
        all_layers=every,
        device=together(each),
        host=host,
        device_read=sum(read[first:]) + sum(filled_caches[first:]) + (head_read if wanted else 0),
        host_read=sum(read[:first]) + sum(filled_caches[:first]) + (0 if wanted else head_read),
        host_weights=behind,
        gpus=each if gpus > 1 else (),
    )


def _each(
    shape: Shape,
    context: int,
    weights: list[int],
    caches: list[int],
    first: int,
    head: int,
    visiting: int,
    gpus: int,
) -> tuple[Footprint, ...]:
    """What each of the GPUs holds: a run of the layers from `first` on, the last one the output
    too, the first one what visits.

    Of alike GPUs each gets as many, the output counted as a layer. Where all layers are on GPUs,
    the batches of a prompt follow each other through them, with as many copies of what passes from
    one to the next as the scheduler keeps. Source: llama.cpp, src/llama-model.cpp, load_tensors
    (get_layer_buft_list), and ggml/src/ggml-backend.cpp, GGML_SCHED_MAX_COPIES.
    """
    wanted = shape.layers + 1 - first
    copies = memory.constants().offload["copies"] if gpus > 1 and first == 0 else 1
    parts = []
    for place in range(gpus):
        # The layers whose part of the whole begins in this GPU's part of it, rounded up.
        begin = first - (-place * wanted // gpus)
        end = first - (-(place + 1) * wanted // gpus)
        last = begin <= shape.layers < end
        graph = _graph(shape, context) if last else _between(shape, context)
        parts.append(
            Footprint(
                sum(weights[begin:end]) + (head if last else 0),
                sum(caches[begin:end]),
                (graph if begin < end else 0)
                + (copies - 1) * _passed(shape, context)
                + (visiting if place == 0 else 0),
                0,
            )
        )
    return tuple(parts)


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
    batch = min(memory.constants().batch, context)
    logits = batch * _FLOAT * (shape.vocab + 2 * shape.hidden + shape.heads * shape.head_dim)
    return max(logits, memory.activations(shape, context)) + _mask(context)


def _between(shape: Shape, context: int) -> int:
    """The same on a GPU without the output matrix: the widest layer, and the mask."""
    return memory.activations(shape, context) + _mask(context)


def _mask(context: int) -> int:
    batch: int = min(memory.constants().batch, context)
    return _HALF * batch * memory.padded_context(context)


def _passed(shape: Shape, context: int) -> int:
    """What a GPU is handed for one batch: the states so far, and the mask in float32."""
    batch: int = min(memory.constants().batch, context)
    return _FLOAT * batch * (shape.hidden + memory.padded_context(context))
