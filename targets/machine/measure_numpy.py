"""What is left to measure with where no engine is installed: numpy's products of float32
matrices."""

from __future__ import annotations

_COLUMNS, _BATCH = 2048, 128


class NumpyWork:
    """One float32 matrix of `bytes_total` bytes. BLAS chooses the threads itself."""

    def __init__(self, bytes_total: int) -> None:
        # Numpy loads here and not at the top: this module is imported by name in a child process
        # only.
        import numpy

        rows = max(1024, bytes_total // (4 * _COLUMNS))
        self._weights = numpy.full((rows, _COLUMNS), 0.5, dtype=numpy.float32)
        self._token = numpy.full((_COLUMNS,), 0.5, dtype=numpy.float32)
        self._batch = numpy.full((_COLUMNS, _BATCH), 0.5, dtype=numpy.float32)
        self.bytes = self._weights.nbytes

    def decode(self, threads: int) -> float:
        """Multiply one token; return the bytes of weights read."""
        self._weights @ self._token
        return float(self.bytes)

    def prefill(self, threads: int) -> float:
        """Multiply a batch of tokens with part of the matrix; return the operations done."""
        part = self._weights[:8192]
        part @ self._batch
        return 2.0 * part.size * _BATCH

    def close(self) -> None:
        """Free the memory."""
        del self._weights
