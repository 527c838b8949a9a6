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
            f"{folder} holds shards but no {INDEX}, so nobody can tell whether one is missing.",
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
    tensors: dict[str, TensorInfo] = {}
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if not is_weights(shard):
            raise bad_input(
                f"{index} names the file {shard!r}, which is no safetensors file of this folder."
            )
    for shard in shards:
        if shard not in files:
            raise bad_input(
                f"{index.parent / shard} is missing; {index.name} says that it holds tensors.",
                "Get the file from where the others were published.",
            )
        for tensor in read_header(files[shard]):
            if weight_map.get(tensor.name) != shard:
                where = (
                    f"names {weight_map[tensor.name]} for it"
                    if tensor.name in weight_map
                    else "does not name it"
                )
                raise bad_input(
                    f"{files[shard]} holds tensor {tensor.name!r}, but {index.name} {where}."
                )
            tensors[tensor.name] = tensor
    for name, shard in weight_map.items():
        if name not in tensors:
            raise bad_input(
                f"{files[shard]} does not hold tensor {name!r}; {index.name} says that it does."
            )
    return tensors
