"""Models: from an alias, a hub id, a directory or a GGUF file to weights in memory."""

import contextlib
import hashlib
import json
import pickle
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from token_geometry.base import project, wheels
from token_geometry.base.errors import InputError, one_of
from token_geometry.models import blocks, checkpoints, dequantized, gguf_header

DTYPES = ("float32", "bfloat16", "float16")

PADDING = 0.1
"""Largest share of a model's vocabulary that a tokenizer may lack. Embeddings are padded to a round
number of rows, by 2.3 % at most in the models that transformers reads; more is another tokenizer."""

_CONTROL = re.compile(r"(?P<original>.+)@(?P<control>random|permuted)(-(?P<seed>\d+))?")

# Families that were trained with BOS on every document and are another model without it.
_NEEDS_BOS = ("gemma", "gemma2", "gemma3", "gemma3_text")


@dataclass(frozen=True)
class ModelSource:
    """Where a model is and what decides its numbers; nothing of it is loaded yet."""

    name: str
    """The name by which the run calls it: alias, hub id or path."""

    title: str
    """Name that a reader sees."""

    kind: str
    """`archives`, `hub`, `directory`, `gguf` or `meta` (a directory of Meta's `.pth` files)."""

    location: str
    """Hub id or path; empty for archives."""

    revision: str | None = None
    """Revision of the hub."""

    gguf_sha256: str = ""
    """Checksum of the GGUF file that the archives hold."""

    archives: tuple[wheels.Archive, ...] = ()
    """Wheels that hold the file, in order."""

    prepend_bos: bool | None = None
    """Whether BOS is fed first; None: decided by the model's family."""

    license: str = ""
    """Short note on the licence."""

    shape: dict = field(default_factory=dict)
    """`layers`, `width`, `vocabulary`, `parameters`, where they are known."""

    control: str = ""
    """`random`: untrained, weights drawn as before training; `permuted`: the weights of each tensor in
    random order; empty: the model itself."""

    control_seed: int = 0
    """Seed of the control."""

    def identity(self) -> dict[str, str]:
        """What decides the numbers of this model: source and checksum or revision, and the control.

        Raises
        ------
        InputError
            If its files are not where they should be.
        """
        identity = self._original_identity()
        if self.prepend_bos is not None:  # else its family decides, which the files decide
            identity["prepend_bos"] = str(self.prepend_bos).lower()
        if not self.control:
            return identity
        return identity | {"weights": f"{self.control}, seed {self.control_seed}"}

    def _original_identity(self) -> dict[str, str]:
        if self.kind in ("archives", "gguf"):
            return {"source": "gguf", "sha256": _gguf_sha256(self)}
        if self.kind == "hub":
            return {"source": f"hub:{self.location}", "revision": self.revision or "main"}
        if self.kind == "meta":
            _check_complete(self)
        patterns = ["*.json", "*.model"]
        if self.control != "random":  # which reads no weights
            patterns += ["*.safetensors", "*.bin"] if self.kind == "directory" else ["consolidated.*.pth"]
        files = sorted(path for pattern in patterns for path in Path(self.location).glob(pattern))
        return {"source": self.kind} | {path.name: wheels.sha256(path) for path in files}


def aliases() -> dict[str, dict]:
    """The entries of `data/models.yml`."""
    return yaml.safe_load((project.root() / "data" / "models.yml").read_text(encoding="utf-8"))


def resolve(model: str) -> ModelSource:
    """Find out what `model` names; nothing is downloaded or opened.

    Parameters
    ----------
    model
        An alias of `data/models.yml`, a hub id (`owner/name`, optionally `owner/name@revision`), a
        local directory in transformers' format or of Meta's files (`consolidated.*.pth`,
        `params.json`, `tokenizer.model`), or a `.gguf` file. With `@random` or `@permuted` at its
        end, or these with a seed (`@random-1`), it is the untrained control of that model; they are
        no revisions of the hub.

    Raises
    ------
    InputError
        If it is none of these, or files that belong to a model are missing.
    """
    control = _CONTROL.fullmatch(model)
    if control:
        return _control(model, resolve(control["original"]), control["control"], int(control["seed"] or 0))
    known = aliases()
    if model in known:
        return _from_alias(model, dict(known[model]))
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"model {model!r}: there is no such file")
        return ModelSource(name=model, title=path.stem, kind="gguf", location=str(path.resolve()))
    if path.is_dir():
        return _directory(model, path.resolve())
    if model.count("/") == 1 and not model.startswith((".", "/", "~")) and not model.endswith("/"):
        location, _, revision = model.partition("@")
        title = location.split("/")[1]
        return ModelSource(name=model, title=title, kind="hub", location=location, revision=revision or None)
    error = one_of("model", model, known)
    raise InputError(
        f"{error}; or a hub id owner/name, a directory, a .gguf file; or one of these with @random or @permuted"
    )


def check_files(source: ModelSource) -> None:
    """Refuse a local model whose files cannot be loaded, at once and without reading the weights.

    Raises
    ------
    InputError
        If files are missing or cut short, or one of Meta's is no archive of tensors.
    """
    folder = Path(source.location)
    if source.kind in ("archives", "gguf"):
        kept = dequantized.place(_gguf_sha256(source))
        if not kept.is_dir():
            if source.kind == "gguf":
                gguf_header.read(folder)
            return
        folder = kept
    if source.kind == "meta":
        _check_complete(source)
        if source.control != "random":
            checkpoints.open_shards(folder)
    if source.kind == "directory" and source.control != "random":
        if not any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "*.bin")):
            raise InputError(
                f"model {source.name!r} could not be loaded (no *.safetensors or *.bin): the directory holds a "
                "configuration without weights; check that the files are whole, or ask for its @random control"
            )
    if source.kind in ("archives", "gguf", "directory") and source.control != "random":
        with readable_errors(source):
            _check_weights(folder)


def local_directory(source: ModelSource) -> str:
    """A directory or hub id from which transformers loads `source`; GGUF is dequantized once."""
    if source.kind == "archives":
        return str(dequantized.folder(source.gguf_sha256, lambda target: _joined(source, target)))
    if source.kind == "gguf":
        return str(dequantized.folder(_gguf_sha256(source), lambda _: Path(source.location)))
    return source.location


def is_dequantized(source: ModelSource) -> bool:
    """Whether `local_directory` has nothing to do."""
    if source.kind == "archives":
        return dequantized.place(source.gguf_sha256).is_dir()
    return source.kind != "gguf" or dequantized.place(_gguf_sha256(source)).is_dir()


def load_config(source: ModelSource):
    """The model's configuration (a transformers `PreTrainedConfig`); no weights are read."""
    from transformers import AutoConfig

    with readable_errors(source):
        if source.kind == "meta":
            check_files(source)
            return checkpoints.read_config(Path(source.location))
        return AutoConfig.from_pretrained(
            local_directory(source), revision=source.revision, trust_remote_code=False
        )


def load_tokenizer(source: ModelSource):
    """The model's tokenizer (a transformers `PreTrainedTokenizerBase`).

    Raises
    ------
    InputError
        If it cannot be had, or is not the tokenizer of this model: it has ids that the model has no
        embeddings for, or lacks more of the model's vocabulary than padding explains.
    """
    from transformers import AutoTokenizer

    config = load_config(source)
    with readable_errors(source):
        if source.kind == "meta":
            tokenizer = checkpoints.read_tokenizer(Path(source.location))
        elif source.kind in ("archives", "gguf"):
            tokenizer = dequantized.read_tokenizer(Path(local_directory(source)))
        else:
            tokenizer = AutoTokenizer.from_pretrained(
                source.location, revision=source.revision, trust_remote_code=False
            )
    _check_vocabulary(source, tokenizer, blocks.vocabulary(config))
    return tokenizer


def load_model(
    source: ModelSource, *, dtype: str, device: str, n_layers: int | None = None, devices: Sequence[str] = ()
):
    """The model in evaluation mode.

    Parameters
    ----------
    source
        From `resolve`.
    dtype
        One of `DTYPES`.
    device
        A torch device, as `choose_device` returns it.
    n_layers
        How many of its L blocks to build and to read: so many as the index of the last hidden state
        that is wanted. Below L the model has no head, and of its files only what is left of it is
        read; for 0, which needs the embeddings only, one block is built, since there are no networks
        without. None, or L: the whole model.
    devices
        GPUs that the model is spread over, block by block, where one is too small; `device` is the first
        of them. Empty, or one: `device` alone.

    Returns
    -------
    transformers.PreTrainedModel

    Raises
    ------
    InputError
        If the model cannot be had or has fewer layers; before any weights are read.
    """
    import accelerate
    import torch

    if dtype not in DTYPES:
        raise one_of("dtype", dtype, DTYPES)
    config = load_config(source)
    whole = is_whole(source, config, n_layers)
    with readable_errors(source), contextlib.ExitStack() as stack:
        check_files(source)
        kind, config, sketch = blocks.network(config, None if whole else max(n_layers, 1))
        if not whole or source.control == "random":
            stack.enter_context(_without_report())
        options = {"config": config, "dtype": getattr(torch, dtype)}
        parts = _spread(sketch.to(options["dtype"]), devices, source.name) if len(devices) > 1 else {}
        if source.control == "random":
            model = _untrained(kind, options, source.control_seed)
            if parts:  # drawn on the CPU, as everywhere: a GPU would draw other numbers
                model = accelerate.dispatch_model(model, parts)
        else:
            # straight to the GPUs: several processes together need not have room for it beside them
            place = torch.device(device)
            on_gpu = {"device_map": parts or {"": place.index or 0}} if place.type == "cuda" else {}
            model = _from_files(kind, options | on_gpu, source)
        if source.control == "permuted":
            _permute(model, source.control_seed)
        return (model if parts else model.to(device)).eval()


def is_whole(source: ModelSource, config, n_layers: int | None) -> bool:
    """Whether `n_layers` blocks are all blocks of the model; None stands for all.

    Raises
    ------
    InputError
        If there are not so many.
    """
    last = blocks.depth(config)
    if n_layers is not None and not 0 <= n_layers <= last:
        raise InputError(
            f"layer {n_layers} is beyond the layers of model {source.name!r}, of which the last is {last}; "
            f"accepted: 0 to {last}"
        )
    return n_layers is None or n_layers == last


def at_commit(source: ModelSource) -> ModelSource:
    """The same model with the commit that its revision stands for at this moment.

    So all files of an extraction come from one commit, which its results record. A source that is not
    of the hub, or whose revision neither the hub nor the local cache can tell, is returned as it is.
    """
    if source.kind != "hub":
        return source
    from transformers.utils.hub import resolve_revision

    found = resolve_revision(source.location, source.revision)
    return replace(source, revision=getattr(found, "resolved", found))


def check_length(source: ModelSource, config, n_tokens: int) -> None:
    """Refuse a prompt that is longer than what the model can read at once.

    Of the files that Meta publishes none says how long that is: there, any length passes.

    Parameters
    ----------
    source
        From `resolve`.
    config
        From `load_config`.
    n_tokens
        Tokens of the prompt, special tokens not counted.

    Raises
    ------
    InputError
        Naming the length and the model's context.
    """
    context = blocks.context(config)
    bos = int(needs_bos(source, config.model_type))
    if source.kind != "meta" and context and n_tokens + bos > context:
        raise InputError(
            f"n_tokens is {n_tokens}, and the context of model {source.name!r} is {context} tokens"
            f"{' with BOS among them' if bos else ''}; accepted: up to {context - bos}"
        )


def needs_bos(source: ModelSource, model_type: str) -> bool:
    """Whether BOS is fed before the prompt (and its position dropped from the cloud)."""
    return model_type in _NEEDS_BOS if source.prepend_bos is None else source.prepend_bos


def choose_device(device: str) -> str:
    """The torch device for `device`, where `auto` is the first GPU or else the CPU.

    Raises
    ------
    InputError
        If the device does not exist here.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, ValueError):
        available = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
        raise InputError(
            f"device {device!r} does not exist here; accepted: auto, {', '.join(available)}"
        ) from None
    return device


class readable_errors:
    """Turn what transformers and the hub raise at loading into one line."""

    def __init__(self, source: ModelSource):
        self.source = source

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, Exception) and not isinstance(error, InputError):
            if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
                raise InputError(
                    f"model {self.source.name!r} is too large for the device's memory: take dtype bfloat16, or "
                    "spread it over more GPUs with gpus_per_model"
                ) from None
            reason = str(error).strip().splitlines()[0] if str(error).strip() else kind.__name__
            if isinstance(error, pickle.UnpicklingError):  # whose own words advise to open the file all the same
                reason = "a file holds a pickled object that is no tensor, not opened, since that could run code"
            raise InputError(
                f"model {self.source.name!r} could not be loaded ({reason}): {_way_out(self.source)}"
            ) from None


def _way_out(source: ModelSource) -> str:
    if source.kind == "hub":
        return (
            f"connect to a network, set HF_TOKEN for a gated model, or download {source.location} "
            "elsewhere and give its local directory"
        )
    if source.kind in ("archives", "gguf"):
        kept = dequantized.place(_gguf_sha256(source))
        if kept.is_dir():
            return f"its dequantized copy is damaged; delete the folder {kept}, it is made again"
    return "check that the files are whole"


def _from_alias(name: str, entry: dict) -> ModelSource:
    parts = tuple(wheels.Archive(**part) for part in entry.pop("archives", ()))
    hub, meta = entry.pop("hub", ""), entry.pop("meta", "")
    if meta:
        return ModelSource(name=name, kind="meta", location=str(project.root() / meta), **entry)
    return ModelSource(name=name, kind="archives" if parts else "hub", location=hub, archives=parts, **entry)


def _control(name: str, original: ModelSource, control: str, seed: int) -> ModelSource:
    if original.control:
        raise InputError(f"model {name!r} asks for the control of a control: leave one of them out")
    words = {"random": "untrained", "permuted": "weights permuted"}[control]
    title = f"{original.title}, {words}" + (f" (seed {seed})" if seed else "")
    return replace(original, name=name, title=title, control=control, control_seed=seed)


def _directory(name: str, folder: Path) -> ModelSource:
    source = ModelSource(name=name, title=folder.name, kind="directory", location=str(folder))
    if (folder / "config.json").is_file():
        return source
    if not checkpoints.is_meta(folder):
        raise InputError(f"model {name!r}: the directory holds no config.json and no consolidated.*.pth")
    source = replace(source, kind="meta")
    _check_complete(source)
    return source


def _check_complete(source: ModelSource) -> None:
    try:
        checkpoints.check_files(Path(source.location))
    except InputError as error:
        raise InputError(f"model {source.name!r}: {error}") from None


def _check_vocabulary(source: ModelSource, tokenizer, n_vocabulary: int) -> None:
    # added tokens may lie beyond: Gemma 3's tokenizer has one for images, which text never yields
    if tokenizer.vocab_size > n_vocabulary:
        raise InputError(
            f"model {source.name!r} has a vocabulary of {n_vocabulary} and its tokenizer one of "
            f"{tokenizer.vocab_size}: the tokenizer belongs to another model; take the files of one model"
        )
    if len(tokenizer) < (1 - PADDING) * n_vocabulary:
        raise InputError(
            f"model {source.name!r} has a vocabulary of {n_vocabulary}, of which its tokenizer has only "
            f"{len(tokenizer)}: the tokenizer belongs to another model; take the files of one model"
        )


def _spread(sketch, gpus: Sequence[str], name: str) -> dict[str, int]:
    import torch

    from token_geometry.models import placement

    # the rest is for the states of a prompt
    free = [int(0.8 * torch.cuda.mem_get_info(gpu)[0]) for gpu in gpus]
    return placement.device_map(sketch, gpus, free=free, name=name)


def _from_files(kind: type, options: dict, source: ModelSource):
    if source.kind == "meta":
        weights = checkpoints.tensors(Path(source.location), options["config"])
        location, more = None, {"state_dict": weights}
    else:
        location, more = local_directory(source), {"revision": source.revision}
    model, report = kind.from_pretrained(location, output_loading_info=True, **more, **options)
    checkpoints.refuse_missing(report, source.name)
    return model


def _untrained(kind: type, options: dict, seed: int):
    import torch

    # Weights are drawn from the first module to the last, the head at the end: so a model with the
    # first few blocks only has the weights that the whole one has there.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind.from_pretrained(None, state_dict={}, **options)


def _permute(model, seed: int) -> None:
    import torch

    for name, weights in model.named_parameters():
        # by name, without the part that only a model with head has: so it is the same for the first
        # few blocks alone
        stem = name.removeprefix(f"{model.base_model_prefix}.")
        digest = hashlib.sha256(f"{seed}\0{stem}".encode()).digest()
        random = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        order = torch.randperm(weights.numel(), generator=random)
        with torch.no_grad():
            weights.copy_(weights.flatten()[order].view_as(weights))


@contextlib.contextmanager
def _without_report():
    """Keep transformers from listing the weights that were left out, which was the purpose."""
    from transformers import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _check_weights(folder: Path) -> None:
    """Raise where a file of the weights is missing, cut short or holds other objects; none is read whole."""
    import torch
    from safetensors import safe_open

    index = folder / "model.safetensors.index.json"
    named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()) if index.is_file() else set()
    files = sorted({folder / name for name in named} | set(folder.glob("*.safetensors")))
    for path in files:
        with safe_open(path, framework="pt"):
            pass
    for path in () if files else folder.glob("pytorch_model*.bin"):
        if zipfile.is_zipfile(path):  # else it is of before PyTorch 1.6 and can only be read whole
            torch.load(path, map_location="cpu", mmap=True, weights_only=True)


def _gguf_sha256(source: ModelSource) -> str:
    return source.gguf_sha256 or wheels.sha256(Path(source.location))


def _joined(source: ModelSource, folder: Path) -> Path:
    return wheels.join(source.archives, folder / "model.gguf", source.gguf_sha256)
