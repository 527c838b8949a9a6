"""libmtmd of the pinned llama.cpp: the image encoder of an artifact, and texts with pictures as the
chunks that the decoder takes."""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packager.errors import bad_input, no_room, usage
from targets.gguf import library

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CHANNELS = 3


@functools.cache
def mtmd() -> Any:
    """The low-level API of libmtmd; silent. Raises PackError where llama-cpp-python brings none."""
    library.llama()
    try:
        # Late: it loads the library.
        from llama_cpp import mtmd_cpp
    except (ImportError, OSError, RuntimeError) as error:
        raise usage(
            "This installation of llama-cpp-python has no libmtmd, which pictures and sound take.",
            "Install it again: pip install --force-reinstall 'qwen-pack[llama-cpp]'.",
        ) from error
    mtmd_cpp.mtmd_helper_log_set(_quiet(), ctypes.c_void_p(0))
    return mtmd_cpp


@functools.cache
def _quiet() -> Any:
    return library.llama().llama_log_callback(lambda _level, _text, _user: None)


@contextmanager
def _captured() -> Iterator[list[str]]:
    """What libmtmd says meanwhile."""
    lib, lines = mtmd(), list[str]()

    def listen(_level: int, text: bytes, _user: Any) -> None:
        lines.append(text.decode("utf-8", "replace"))

    callback = library.llama().llama_log_callback(listen)
    lib.mtmd_helper_log_set(callback, ctypes.c_void_p(0))
    try:
        yield lines
    finally:
        lib.mtmd_helper_log_set(_quiet(), ctypes.c_void_p(0))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a prompt: ids of text, or the handle of an image's tokens. `positions` is how far
    it moves the next one on: fewer than tokens for a picture (M-RoPE)."""

    handle: Any
    ids: tuple[int, ...] | None
    tokens: int
    positions: int


class ImageEncoder:
    """The loaded encoder of one decoder. `width` numbers of each image token go to the decoder."""

    kind = "an image encoder"
    noun = "picture"

    def __init__(
        self,
        path: Path,
        model: Any,
        *,
        threads: int,
        gpu: bool,
        least: int | None = None,
        most: int | None = None,
    ) -> None:
        """`least` and `most` bound the tokens of a picture, which is resized to stay within them;
        llama.cpp's own are 8 and 4,096. Raises PackError (bad input) for a file that is not an
        image encoder of this decoder."""
        self._lib = lib = mtmd()
        self._context: Any = None
        params = lib.mtmd_context_params_default()
        params.use_gpu, params.n_threads = gpu, threads
        params.print_timings = False
        # On a GPU it tries whether flash attention is there; memory is taken at the first picture,
        # as much as that one needs.
        params.warmup = gpu
        if not gpu:
            # Without it attention takes patches x patches x heads.
            params.flash_attn_type = library.llama().LLAMA_FLASH_ATTN_TYPE_ENABLED
        if least is not None:
            params.image_min_tokens = least
        if most is not None:
            params.image_max_tokens = most
        with _captured() as log_lines:
            self._context = lib.mtmd_init_from_file(str(path).encode(), model, params)
        if not self._context:
            raise bad_input(
                f"llama.cpp cannot load {path.name}: {_last_error(log_lines)}",
                "Build the package again.",
            )
        if not self._fits():
            self.close()
            raise bad_input(f"{path.name} is not {self.kind}.", "Build the package again.")
        self.width = int(library.llama().llama_model_n_embd_inp(model))

    @contextmanager
    def chunks(
        self, texts: Sequence[str], pictures: Sequence[Mapping[str, Any]], *, count: bool = False
    ) -> Iterator[list[Chunk]]:
        """The parts of a prompt; see packager.session.VisionSession.look. With `count` the pictures
        are not read: `width` and `height` alone say how many tokens they take."""
        lib = self._lib
        bitmaps: list[Any] = []
        handle = lib.mtmd_input_chunks_init()
        try:
            # One by one: what was made before one fails is freed.
            bitmaps.extend(self._bitmap(picture, count) for picture in pictures)
            parts, held = self._parts(texts, bitmaps)
            array = (ctypes.POINTER(lib.mtmd_input_part) * len(parts))(
                *(ctypes.pointer(part) for part in parts)
            )
            with _captured() as said:
                code = lib.mtmd_tokenize_from_parts(self._context, handle, array, len(parts), False)
            del held  # the parts point at it until here
            if code:
                raise bad_input(
                    f"llama.cpp does not take the {self.noun}: {_last_error(said)}",
                    f"Take another {self.noun}.",
                )
            self._free_bitmaps(bitmaps)
            yield self._listed(handle)
        finally:
            self._free_bitmaps(bitmaps)
            lib.mtmd_input_chunks_free(handle)

    def _fits(self) -> bool:
        return bool(self._lib.mtmd_support_vision(self._context))

    def _bitmap(self, picture: Mapping[str, Any], count: bool) -> Any:
        width, height = int(picture["width"]), int(picture["height"])
        data = None if count else _pixels(picture)
        if data is not None and len(data) != width * height * _CHANNELS:
            raise bad_input(
                f"The picture has {len(data)} bytes of pixels where {width} x {height} take "
                f"{width * height * _CHANNELS}.",
                "Give it again.",
            )
        # Read where it is: the engine makes a copy of its own.
        pixels = ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))
        bitmap = self._lib.mtmd_bitmap_init(width, height, pixels)
        if not bitmap:
            raise no_room("There is no memory for the picture.", "Take a smaller one.")
        return bitmap

    def _parts(self, texts: Sequence[str], bitmaps: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The parts in order, empty texts left out, and what they point at."""
        lib = self._lib
        assert len(texts) == len(bitmaps) + 1
        parts, held = [], []
        for number, text in enumerate(texts):
            if text:
                data = text.encode("utf-8", "surrogatepass")
                given = lib.mtmd_input_text(data, len(data), False, True)
                held += [data, given]
                parts.append(lib.mtmd_input_part(ctypes.pointer(given), None))
            if number < len(bitmaps):
                parts.append(lib.mtmd_input_part(None, bitmaps[number]))
        return parts, held

    def _listed(self, handle: Any) -> list[Chunk]:
        lib = self._lib
        rows = []
        for number in range(lib.mtmd_input_chunks_size(handle)):
            chunk = lib.mtmd_input_chunks_get(handle, number)
            ids = None
            if lib.mtmd_input_chunk_get_type(chunk) == lib.MTMD_INPUT_CHUNK_TYPE_TEXT:
                size = ctypes.c_size_t()
                tokens = lib.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(size))
                ids = tuple(tokens[: size.value])
            rows.append(
                Chunk(
                    chunk,
                    ids,
                    int(lib.mtmd_input_chunk_get_n_tokens(chunk)),
                    int(lib.mtmd_input_chunk_get_n_pos(chunk)),
                )
            )
        return rows

    def _free_bitmaps(self, bitmaps: list[Any]) -> None:
        while bitmaps:
            self._lib.mtmd_bitmap_free(bitmaps.pop())

    def encode(self, chunk: Chunk) -> tuple[Any, float]:
        """The embeddings of a picture, as the encoder's own buffer (floats, tokens x width), which
        holds until the next call; and the seconds that they took."""
        started = time.perf_counter()
        with _captured() as said:
            code = self._lib.mtmd_encode_chunk(self._context, chunk.handle)
        if code:
            raise no_room(
                f"llama.cpp could not encode a {self.noun} of {chunk.tokens} tokens: "
                f"{_last_error(said)}",
                f"Take a smaller {self.noun}.",
            )
        return self._lib.mtmd_get_output_embd(self._context), time.perf_counter() - started

    def array(self, buffer: Any, chunk: Chunk) -> NDArray[np.float32]:
        """A copy of what `encode` gave: (tokens, width)."""
        # Late: numpy comes with the engine.
        import numpy as np

        return np.ctypeslib.as_array(buffer, (chunk.tokens, self.width)).copy()

    def places(self, chunk: Chunk) -> NDArray[np.int64]:
        """(3, tokens + 1): time, height and width of a picture's tokens from position 0 on, and of
        what comes after it."""
        import numpy as np

        tokens = self._lib.mtmd_input_chunk_get_tokens_image(chunk.handle)
        placed = (
            self._lib.mtmd_image_tokens_get_decoder_pos(tokens, 0, number)
            for number in range(chunk.tokens)
        )
        rows = [(one.t, one.y, one.x) for one in placed]
        return np.array([*rows, (chunk.positions,) * 3], np.int64).T

    def decode(self, context: Any, chunk: Chunk, buffer: Any, position: int, batch: int) -> int:
        """Put embeddings into the decoder's cache at a position; the position behind them."""
        behind = ctypes.c_int32(position)
        code = self._lib.mtmd_helper_decode_image_chunk(
            self._context,
            context,
            chunk.handle,
            buffer,
            position,
            0,
            batch,
            ctypes.byref(behind),
            self._lib.mtmd_helper_post_decode_callback(),
            ctypes.c_void_p(0),
        )
        if code:
            raise no_room(
                f"llama.cpp could not compute a {self.noun}'s {chunk.tokens} tokens (code {code}).",
                f"Take a smaller {self.noun} or a longer context.",
            )
        return behind.value

    def close(self) -> None:
        """Free it."""
        if self._context:
            self._lib.mtmd_free(self._context)
            self._context = None


def _pixels(picture: Mapping[str, Any]) -> bytes:
    data = picture.get("data")
    return Path(picture["path"]).read_bytes() if data is None else bytes(data)


def _last_error(log_lines: list[str]) -> str:
    """The last line of the library's log that says what went wrong."""
    lines = [line.strip() for line in "".join(log_lines).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "mismatch" in line.lower()]
    return (errors or lines or ["it does not say why"])[-1]
