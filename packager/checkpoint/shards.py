"""The tensors of a checkpoint over all of its files, as the shard index has them."""

from __future__ import annotations

from pathlib import Path

from packager.checkpoint.folder import INDEX, is_pickle, is_weights, read_json
from packager.checkpoint.header import TensorInfo, read_header
from packager.errors import PackError, bad_input
from packager.foreign import names_in

_SINGLE = "model.safetensors"


def read_tensors(folder: Path, files: dict[str, Path]) -> dict[str, TensorInfo]:
    """Every tensor by name in stored order, shard after shard. Raises PackError (exit code 6)
    naming file and tensor."""
    if INDEX in files:
        if _SINGLE in files and _shards(files[INDEX]).isdisjoint(files):
            # An index that earlier shards left behind.
            return {tensor.name: tensor for tensor in read_header(files[_SINGLE])}
        if _SINGLE in files:
            raise bad_input(
                f"{folder} holds both {_SINGLE} and {INDEX}, so it is not clear which weights "
                "count.",
                "Remove the one that is not meant.",
            )
        return _read_shards(files[INDEX], files)
    if _SINGLE in files:
        return {tensor.name: tensor for tensor in read_header(files[_SINGLE])}
    raise _no_weights(folder, files)


def _no_weights(folder: Path, files: dict[str, Path]) -> PackError:
    if any(is_weights(name) for name in files):
        return bad_input(
            f"{folder} holds shards but no {INDEX}, so a missing shard cannot be detected.",
            "Get the index from where the shards were published.",
        )
    names = names_in(folder)
    pickles = [name for name in names if is_pickle(name)]
    if pickles:
        return bad_input(
            f"{folder} holds its weights as a pickle ({pickles[0]}), which can run any code when "
            "it is loaded.",
            "Name a repository or folder with safetensors files.",
        )
    if any(name.endswith(".gguf") for name in names):
        return bad_input(
            f"{folder} holds a GGUF file, which is converted already.",
            "Name the folder with the safetensors files that it was made from.",
        )
    return bad_input(
        f"{folder} holds no {_SINGLE}.",
        "Name the folder that holds config.json and the safetensors files.",
    )


def _read_shards(index: Path, files: dict[str, Path]) -> dict[str, TensorInfo]:
    # Which tensors there are is what the files say, as in transformers: an index may name too many
    # (a tied output matrix) or too few. It is asked for the files alone.
    tensors: dict[str, TensorInfo] = {}
    shards = sorted(_shards(index))
    for shard in shards:
        if shard not in files:
            raise bad_input(
                f"{index.parent / shard} is missing; {index.name} says that it holds tensors.",
                "Get the file from where the others were published.",
            )
        for tensor in read_header(files[shard]):
            if tensor.name in tensors:
                raise bad_input(
                    f"{tensors[tensor.name].file} and {files[shard]} both hold tensor "
                    f"{tensor.name!r}.",
                    "Get both files from one and the same revision.",
                )
            tensors[tensor.name] = tensor
    return tensors


def _shards(index: Path) -> set[str]:
    weight_map = read_json(index).get("weight_map")
    if (
        not isinstance(weight_map, dict)
        or not weight_map
        or not all(isinstance(value, str) for value in weight_map.values())
    ):
        raise bad_input(
            f"{index} has no weight_map from tensors to files.",
            "Get the index again from where it was published.",
        )
    shards = set(weight_map.values())
    for shard in sorted(shards):
        if not is_weights(shard):
            raise bad_input(
                f"{index} names the file {shard!r}, which is not a safetensors file of this "
                "folder.",
                "Shards belong next to the index, with names such as "
                "model-00001-of-00002.safetensors: move them there and name them so in it.",
            )
    return shards
