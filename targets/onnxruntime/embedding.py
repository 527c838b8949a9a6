"""What the model builder leaves wrong at the embedding.

Untied, with zero points: it stays in full precision, as the quantizers for zero points look at
matrix products only. The embedding of Qwen3-8B takes 2.5 GB then, a third of the artifact. ONNX
Runtime's other quantizer knows embeddings as well, so it goes over the graph once more.

Tied, with an output matrix of 8 bits beside others of 4 without zero points: the embedding looks
for its numbers under names that the quantizer of that kind does not give, and the graph is invalid.
"""

from __future__ import annotations

from typing import Any


def install(builders_base: Any) -> None:
    """Let the quantizer that `builders_base` (the builder's module `builders.base`) uses take the
    embedding too, in 4 bits."""
    library: Any = builders_base.MatMulNBitsQuantizer

    class WithEmbedding(library):  # type: ignore[misc]
        """The library's quantizer, followed by one for the embedding with the same block and zero
        points."""

        model: Any

        def process(self) -> None:
            """Quantize `self.model` in place."""
            super().process()
            embedding = library(
                self.model.model,
                bits=4,
                block_size=self.block_size,
                is_symmetric=self.is_symmetric,
                op_types_to_quantize=("Gather",),
            )
            embedding.process()
            self.model = embedding.model

    builders_base.MatMulNBitsQuantizer = WithEmbedding


def install_names(builders_base: Any) -> None:
    """Let a tied embedding find an output matrix of 8 bits by the names that the quantizer
    `default` gives it."""
    known = builders_base.Model.make_tied_quantized_embedding_input_names

    def names(self: Any) -> tuple[int, str, str, str]:
        bits, weight, scales, zero_points = known(self)
        if self.quantization_algo == "default" and bits == 8:
            matrix = "lm_head.MatMul.weight"
            return bits, f"{matrix}_Q{bits}", f"{matrix}_scales", ""
        return bits, weight, scales, zero_points

    builders_base.Model.make_tied_quantized_embedding_input_names = names
