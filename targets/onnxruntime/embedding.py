"""A quantized embedding for untied models beside zero points, which the model builder leaves in
full precision.

Its quantizers for zero points look at matrix products only. Without this the embedding of Qwen3-8B
takes 2.5 GB, a third of the artifact. ONNX Runtime's other quantizer knows embeddings as well, so
it goes over the graph once more.
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
