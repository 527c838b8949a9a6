"""Matrix kernels of OpenVINO's CPU plug-in on int4 weights, as NNCF compresses them: symmetric,
groups of 128."""

from __future__ import annotations

from typing import Any

_COLUMNS, _ROWS, _GROUP = 2048, 8192, 128
_BATCH = 128


class OpenVinoWork:
    """A stack of int4 weight matrices, `bytes_total` large; one compiled model per thread count,
    made when first used."""

    def __init__(self, bytes_total: int) -> None:
        # Numpy and openvino load here and not at the top: this module is imported by name in a
        # child process only.
        import numpy
        import openvino

        self._numpy, self._openvino = numpy, openvino
        per_matrix = _COLUMNS * _ROWS // 2 + _COLUMNS * _ROWS // _GROUP * 2
        self._count = max(2, bytes_total // per_matrix)
        self.bytes = self._count * per_matrix
        self._core = openvino.Core()
        self._compiled: dict[tuple[int, int], Any] = {}

    def decode(self, threads: int) -> float:
        """Multiply one token with all matrices; return the bytes of weights read."""
        self._infer(1, threads)
        return float(self.bytes)

    def prefill(self, threads: int) -> float:
        """Multiply a batch of tokens with two matrices; return the operations done."""
        self._infer(_BATCH, threads)
        return 2.0 * _COLUMNS * _ROWS * 2 * _BATCH

    def close(self) -> None:
        """Free the memory."""
        self._compiled.clear()

    def _infer(self, tokens: int, threads: int) -> None:
        key = (tokens, threads)
        if key not in self._compiled:
            # One stream of that many threads is what a single conversation gets.
            config = {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
            }
            compiled = self._core.compile_model(self._model(tokens), "CPU", config)
            request = compiled.create_infer_request()
            request.get_input_tensor().data[:] = 0.5
            self._compiled[key] = request
        self._compiled[key].infer()

    def _model(self, tokens: int) -> Any:
        """Products of one input with every matrix, added up so that none is optimized away."""
        openvino, numpy = self._openvino, self._numpy
        ops = openvino.opset13
        inputs = ops.parameter([tokens, _COLUMNS], numpy.float32)
        random = numpy.random.default_rng(0)
        total = None
        for _ in range(self._count if tokens == 1 else 2):
            weights = openvino.Tensor(
                openvino.Type.i4, openvino.Shape([_ROWS, _COLUMNS // _GROUP, _GROUP])
            )
            weights.data[:] = random.integers(0, 256, weights.data.shape, dtype=numpy.uint8).view(
                weights.data.dtype
            )
            half = ops.convert(openvino.op.Constant(weights), openvino.Type.f16)
            scale = numpy.full((_ROWS, _COLUMNS // _GROUP, 1), 0.01, dtype=numpy.float16)
            scaled = ops.reshape(
                ops.multiply(half, openvino.op.Constant(scale)),
                numpy.array([_ROWS, _COLUMNS]),
                False,
            )
            product = ops.matmul(inputs, ops.convert(scaled, openvino.Type.f32), False, True)
            total = product if total is None else ops.add(total, product)
        return openvino.Model([total], [inputs], "stack")
