"""Checkpoints as Meta publishes LLaMA: `consolidated.*.pth`, `params.json`, `tokenizer.model`.

The tensors stay in the files, which are mapped into memory, until transformers asks for one."""

import json
import pickle
import re
import zipfile
from pathlib import Path

from token_geometry.base import InputError, files, one_of
from token_geometry.base.lazy import torch, transformers
from token_geometry.models.gguf import tokenizers

_TABLE = files.table(__file__)
_SIZES = {*_TABLE["sizes"]}
_KNOWN = _SIZES | {*_TABLE["others"]}
_EMBEDDINGS, _QUERIES = "tok_embeddings.weight", "layers.0.attention.wq.weight"

_LLAMA_3_NAMED, _LLAMA_3_SPECIAL = _TABLE["llama_3_named"], 256


class Joined:
    """One tensor of a model, joined from its parts in the files at the moment it is asked for.

    transformers takes it in place of a tensor, as it takes the slices of safetensors: it reads `joined[...]` of
    those that the network has, and of no other. The parts are split along `dimension`, or equal where it is None;
    a projection with `heads` has its rows in Meta's rotary order."""

    def __init__(self, parts: list, dimension: int | None, heads: int | None = None):
        self.parts = parts if dimension is not None else parts[:1]
        self.dimension, self.heads = dimension, heads

    def __getitem__(self, index):
        whole = self.parts[0] if len(self.parts) == 1 else torch.cat(self.parts, self.dimension or 0)
        if self.heads is None:
            return whole[index]
        # Meta turns pairs of neighboring rows of a head, transformers row i of the first half with
        # row i of the second: so the even rows of each head go first, then the odd ones
        return whole.unflatten(0, (self.heads, -1, 2)).transpose(1, 2).reshape(whole.shape)[index]


def check_files(name: str, folder: Path) -> None:
    """Refuse the directory of model `name`, if it lacks one of Meta's files, which it names; none is opened."""
    if not (numbers := [int(path.suffixes[-2][1:]) for path in _paths(folder)]):
        raise InputError(f"model {name!r}: {folder} holds no consolidated.*.pth: put Meta's files there")
    missing = [f"consolidated.{n:02d}.pth" for n in range(len(numbers)) if n not in numbers]
    missing += [file for file in ("params.json", "tokenizer.model") if not (folder / file).is_file()]
    if missing:
        way_out = "put the file that Meta released with them beside them"
        raise InputError(f"model {name!r}: {folder} holds consolidated.*.pth but no {missing[0]}: {way_out}")


def open_shards(folder: Path) -> list[dict]:
    """Tensors of each file by Meta's names, mapped, not read; `InputError` if it holds others or is cut off."""
    return [_open(path) for path in _paths(folder)]


def read_config(folder: Path):
    """The configuration that `params.json` describes, a transformers `LlamaConfig`.

    Of the context length it says nothing, since Meta's files do not. Raises `InputError` if `params.json` lacks
    a size, or says something that is not known to be LLaMA's."""
    params = _read_params(folder)
    if (vocabulary := params.get("vocab_size", -1)) < 1:  # LLaMA 1 and 2 leave it to the tokenizer
        vocabulary = _vocabulary(open_shards(folder), params["dim"])
    width = int((params.get("ffn_dim_multiplier") or 1) * int(2 * 4 * params["dim"] / 3))
    multiple = params.get("multiple_of", 256)
    return transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=params["dim"], intermediate_size=-(-width // multiple) * multiple,
        num_hidden_layers=params["n_layers"], num_attention_heads=params["n_heads"],
        num_key_value_heads=params.get("n_kv_heads") or params["n_heads"],
        rms_norm_eps=params.get("norm_eps", 1e-5),
        rope_parameters={"rope_type": "default", "rope_theta": params.get("rope_theta", 10000.0)},
        **_TABLE["of_all"],
    )  # fmt: skip


def tensors(folder: Path, config) -> dict[str, Joined]:
    """A model's tensors for this configuration by transformers' names, each a `Joined` that is read when it is
    indexed; `InputError` if the files do not make up a model of this configuration."""
    shards = open_shards(folder)
    _check_width(folder, shards, config)
    heads = {"attention.wq": config.num_attention_heads, "attention.wk": config.num_key_value_heads}
    named = {f"{meta}.weight": (name, split, None) for meta, (name, split) in _TABLE["ends"].items()}
    # up to LLaMA 2 each file has some columns of the embeddings, from Llama 3 on some rows
    rows = shards[0][_EMBEDDINGS].shape[1] == config.hidden_size
    named[_EMBEDDINGS] = ("model.embed_tokens", 0 if rows else 1, None)
    for layer in range(config.num_hidden_layers):
        for meta, (name, split) in _TABLE["block"].items():
            named[f"layers.{layer}.{meta}.weight"] = (f"model.layers.{layer}.{name}", split, heads.get(meta))
    # what is missing is found when the network has been filled
    there = {meta: how for meta, how in named.items() if all(meta in shard for shard in shards)}
    joined = {name: Joined([one[meta] for one in shards], split, n) for meta, (name, split, n) in there.items()}
    return {f"{name}.weight": tensor for name, tensor in joined.items()}


def read_tokenizer(folder: Path):
    """Tokenizer in `tokenizer.model`: SentencePiece, or from Llama 3 on a list of ranks; else `InputError`."""
    path = folder / "tokenizer.model"
    with path.open("rb") as file:
        is_ranks = re.fullmatch(rb"[A-Za-z0-9+/]+=* \d+", file.readline().strip())
    if is_ranks:
        from transformers.convert_slow_tokenizer import TikTokenConverter

        unnamed = iter(every := range(_LLAMA_3_SPECIAL))
        names = [_LLAMA_3_NAMED.get(n) or f"reserved_special_token_{next(unnamed)}" for n in every]
        special = [f"<|{name}|>" for name in names]
        # the converter's pattern of words is that of Llama 3
        made = TikTokenConverter(vocab_file=str(path), extra_special_tokens=special).converted()
        ends = {"bos_token": special[0], "eos_token": special[1]}
        return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **ends)
    from sentencepiece import SentencePieceProcessor

    try:
        SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError):
        raise InputError(f"{path} is neither a SentencePiece model nor a list of ranks: take Meta's") from None
    tokenizer = transformers.LlamaTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.normalizer = tokenizers.spaces(before=True)
    tokenizer.backend_tokenizer.pre_tokenizer = None
    return tokenizer


def _paths(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("consolidated.*.pth") if path.suffixes[-2][1:].isdecimal())


def _open(path: Path) -> dict:
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is cut short, or a bare pickled object, not opened since that could run code")
        shard = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        if not isinstance(shard, dict) or not all(isinstance(value, torch.Tensor) for value in shard.values()):
            raise ValueError("it holds no tensors by name")
    except Exception as error:  # torch and zipfile raise many kinds, all of which mean: not to be read
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):
            reason = "it holds a pickled object that is no tensor, not opened since that could run code"
        raise InputError(f"{path} could not be read ({reason}): take the file that Meta released") from None
    return shard


def _read_params(folder: Path) -> dict:
    path = folder / "params.json"
    with files.door(str(path), ": take the file that Meta released"):
        params = json.loads(files.decode(path, str(path)))
    if not isinstance(params, dict) or not _SIZES <= params.keys():
        raise InputError(f"{path} must hold {', '.join(sorted(_SIZES))}: take the file that Meta released")
    for name, value in params.items():
        kinds: tuple[type, ...] = (int,) if name in _SIZES else (int, float, bool, type(None))
        if type(value) not in kinds or name in _SIZES and value < 1:
            raise InputError(f"{path}: {name} is {value!r}; accepted: a number, and as a size 1 or more")
    if unknown := [name for name in params if name not in _KNOWN]:  # would be left out of the network
        raise InputError(f"{path}: {one_of('key', unknown[0], sorted(_KNOWN))}; or take transformers' format")
    if params.get("use_scaled_rope"):
        way_out = "give the model in transformers' format"
        raise InputError(f"{path}: use_scaled_rope is true, by a factor that Meta's files do not hold: {way_out}")
    return params


def _vocabulary(shards: list[dict], dim: int) -> int:
    if _EMBEDDINGS not in shards[0]:
        raise InputError(f"consolidated.00.pth holds no {_EMBEDDINGS}: it is no LLaMA as Meta released it")
    rows, columns = shards[0][_EMBEDDINGS].shape
    return rows * len(shards) if columns == dim else rows


def _check_width(folder: Path, shards: list[dict], config) -> None:
    for needed in (_EMBEDDINGS, _QUERIES):
        if any(needed not in shard for shard in shards):
            raise InputError(f"{folder}: a consolidated.*.pth holds no {needed}: it is no LLaMA of Meta's")
    rows, vocabulary = sum(len(shard[_QUERIES]) for shard in shards), _vocabulary(shards, config.hidden_size)
    if rows != config.hidden_size:
        found = f"{len(shards)} consolidated.*.pth hold {rows} of the {config.hidden_size} rows of {_QUERIES}"
    elif vocabulary != config.vocab_size:
        found = f"embeddings have {vocabulary} entries and params.json says vocab_size = {config.vocab_size}"
    else:
        return
    raise InputError(f"{folder}: its {found}: a file is missing, or params.json is of another model")
