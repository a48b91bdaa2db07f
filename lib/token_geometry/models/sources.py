"""Sources: what the name of a model stands for, one class per kind of source.

To add a kind, write its class and put it into `_KINDS`.
"""

import contextlib
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

import yaml

from token_geometry.base import project, wheels
from token_geometry.base.errors import InputError, one_of
from token_geometry.models import checkpoints, controls
from token_geometry.models.gguf import dequantized, header, tokenizers


@dataclass(frozen=True)
class ModelSource:
    """Where a model is and what decides its numbers; nothing of it is loaded yet."""

    name: str
    """The name by which the run calls it: alias, hub id or path."""

    title: str
    """Name that a reader sees."""

    location: str = ""
    """Hub id or path, where there is one."""

    _: KW_ONLY

    revision: str | None = None
    """Revision of the hub."""

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

    kind: ClassVar[str] = ""
    """Word for the kind."""

    entry: ClassVar[str] = ""
    """Key that an entry of `data/models.yml` gives the place by, where it can be of this kind."""

    @classmethod
    def at(cls, name: str) -> Self | None:
        """The source that a hub id or path stands for; None, if it is of another kind."""
        return None

    @classmethod
    def of_entry(cls, name: str, place, **rest) -> Self:
        """The source of an entry of `data/models.yml`."""
        return cls(name, location=place, **rest)

    def identity(self) -> dict[str, str]:
        """What decides the numbers of this model: source and checksum or revision, and the control.

        Raises
        ------
        InputError
            If its files are not where they should be.
        """
        identity = self.origin()
        if self.prepend_bos is not None:  # else its family decides, which the files decide
            identity["prepend_bos"] = str(self.prepend_bos).lower()
        if not self.control:
            return identity
        return identity | {"weights": f"{self.control}, seed {self.control_seed}"}

    def origin(self) -> dict[str, str]:
        """The identity of the model that this is, or is a control of."""
        raise NotImplementedError

    def check_files(self) -> None:
        """Refuse a local model whose files cannot be loaded, at once and without reading the weights."""

    def known_shape(self) -> dict[str, int]:
        """`shape`, where it is known without the configuration; else nothing."""
        return self.shape

    def is_made(self) -> bool:
        """Whether `directory` has nothing to do."""
        return True

    def directory(self) -> str:
        """A directory or hub id from which transformers loads the model; GGUF is dequantized once."""
        return self.location

    def config(self):
        """The configuration, a transformers `PreTrainedConfig`."""
        from transformers import AutoConfig

        return AutoConfig.from_pretrained(self.directory(), revision=self.revision, trust_remote_code=False)

    def tokenizer(self):
        """The tokenizer, a transformers `PreTrainedTokenizerBase`."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.directory(), revision=self.revision, trust_remote_code=False)

    def weights(self, config) -> dict:
        """What `from_pretrained` is to be given to find the weights of a model of this configuration."""
        return {"pretrained_model_name_or_path": self.directory(), "revision": self.revision}

    def at_commit(self) -> Self:
        """The same model with the commit that its revision stands for now, as far as that can be told.

        So all files of an extraction come from one commit, which its results record.
        """
        return self

    def way_out(self) -> str:
        """What to do where the model could not be loaded."""
        return "check that the files are whole"

    @contextlib.contextmanager
    def readable_errors(self) -> Iterator[None]:
        """Turn what transformers and the hub raise at loading into one line."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
                raise InputError(
                    f"model {self.name!r} is too large for the device's memory: take dtype bfloat16, or "
                    "spread it over more GPUs with gpus_per_model"
                ) from None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if isinstance(error, pickle.UnpicklingError):  # whose own words advise to open the file all the same
                reason = "a file holds a pickled object that is no tensor, not opened, since that could run code"
            way_out = self.way_out()
            if isinstance(error, ImportError) or "quantiz" in reason:
                way_out = "provide what is missing, or give weights that are not quantized"
            raise InputError(f"model {self.name!r} could not be loaded ({reason}): {way_out}") from None


@dataclass(frozen=True)
class Gguf(ModelSource):
    """A `.gguf` file; loaded from a dequantized copy in the cache."""

    kind = "gguf"

    @classmethod
    def at(cls, name: str) -> Self | None:
        path = Path(name).expanduser()
        if path.suffix != ".gguf":
            return None
        if not path.is_file():
            raise InputError(f"model {name!r}: there is no such file")
        return cls(name, path.name, str(path.resolve()))

    def origin(self) -> dict[str, str]:
        splitting = self.splitting()
        return {"source": "gguf", "sha256": self.sha256()} | ({"splitting": splitting} if splitting else {})

    def splitting(self) -> str:
        """The file's word for how its tokenizer splits texts, where it was once read in another way."""
        return tokenizers.changed(header.read(Path(self.location)))

    def sha256(self) -> str:
        """Checksum of the file."""
        return wheels.sha256(Path(self.location))

    def fetch(self, folder: Path) -> Path:
        """Path of the file, which may be put into `folder`."""
        return Path(self.location)

    def kept(self) -> Path:
        """Where the dequantized copy is, or will be."""
        return dequantized.place(self.sha256())

    def check_files(self) -> None:
        if self.is_made() and self.control != "random":
            with self.readable_errors():
                _check_weights(self.kept())
        elif self.location:  # a wheel is checked when it comes
            path = Path(self.location)
            tokenizers.check(path, header.read(path))

    def known_shape(self) -> dict[str, int]:
        return self.shape or header.read(Path(self.location)).shape()

    def is_made(self) -> bool:
        return self.kept().is_dir()

    def directory(self) -> str:
        return str(dequantized.folder(self.sha256(), self.fetch))

    def config(self):
        # of a file the header is enough: a layer that it has not is refused before it is dequantized
        made = self.is_made() or not self.location
        return super().config() if made else dequantized.read_config(Path(self.location))

    def tokenizer(self):
        return dequantized.read_tokenizer(Path(self.directory()))

    def way_out(self) -> str:
        if not self.is_made():
            return super().way_out()
        return f"its dequantized copy is damaged; delete the folder {self.kept()}, it is made again"


@dataclass(frozen=True)
class Wheels(Gguf):
    """A GGUF file inside wheels of the Python package index."""

    gguf_sha256: str = field(kw_only=True)
    """Checksum of the GGUF file that the wheels hold."""

    archives: tuple[wheels.Archive, ...] = field(kw_only=True)
    """Wheels that hold the file, in order."""

    tokenizer_pre: str = field(default="", kw_only=True)
    """What `splitting` of the file is, which has to be known before there is the file."""

    kind = "archives"
    entry = "archives"

    @classmethod
    def at(cls, name: str) -> Self | None:
        return None

    @classmethod
    def of_entry(cls, name: str, place, **rest) -> Self:
        return cls(name, archives=tuple(wheels.Archive(**part) for part in place), **rest)

    def sha256(self) -> str:
        return self.gguf_sha256

    def fetch(self, folder: Path) -> Path:
        path = wheels.join(self.archives, folder / "model.gguf", self.gguf_sha256)
        found = tokenizers.changed(header.read(path))
        if found != self.tokenizer_pre:
            raise InputError(
                f"data/models.yml: tokenizer_pre of {self.name!r} is {self.tokenizer_pre!r} and that of its file "
                f"{found!r}: set it to that"
            )
        return path

    def splitting(self) -> str:
        return self.tokenizer_pre


@dataclass(frozen=True)
class Directory(ModelSource):
    """A directory in transformers' format."""

    kind = "directory"
    weight_files = ("*.safetensors", "*.bin")

    @classmethod
    def at(cls, name: str) -> Self | None:
        folder = Path(name).expanduser().resolve()
        if not folder.is_dir():
            return None
        if not (folder / "config.json").is_file():
            folder = _snapshot(name, folder)
        of_hub = re.search(r"/models--[^/]+?--([^/]+)/snapshots/[^/]+$", folder.as_posix())
        return cls(name, of_hub[1] if of_hub else folder.name, str(folder))

    def origin(self) -> dict[str, str]:
        patterns = ["*.json", "*.model"]
        if self.control != "random":  # which reads no weights
            patterns += self.weight_files
        files = sorted(path for pattern in patterns for path in Path(self.location).glob(pattern))
        return {"source": self.kind} | {path.name: wheels.sha256(path) for path in files}

    def check_files(self) -> None:
        if self.control == "random":
            return
        folder = Path(self.location)
        if not any(any(folder.glob(pattern)) for pattern in self.weight_files):
            raise InputError(
                f"model {self.name!r} could not be loaded (no *.safetensors or *.bin): the directory holds a "
                "configuration without weights; check that the files are whole, or ask for its @random control"
            )
        with self.readable_errors():
            _check_weights(folder)


@dataclass(frozen=True)
class Meta(Directory):
    """A directory of Meta's files: `consolidated.*.pth`, `params.json`, `tokenizer.model`."""

    kind = "meta"
    entry = "meta"
    weight_files = ("consolidated.*.pth",)

    @classmethod
    def at(cls, name: str) -> Self | None:
        folder = Path(name).expanduser().resolve()
        if (folder / "config.json").is_file() or not checkpoints.is_meta(folder):
            return None
        source = cls(name, folder.name, str(folder))
        source.check_complete()
        return source

    @classmethod
    def of_entry(cls, name: str, place, **rest) -> Self:
        return super().of_entry(name, str(project.root() / place), **rest)

    def check_complete(self) -> None:
        """Refuse a directory that lacks one of Meta's files."""
        try:
            checkpoints.check_files(Path(self.location))
        except InputError as error:
            raise InputError(f"model {self.name!r}: {error}") from None

    def origin(self) -> dict[str, str]:
        self.check_complete()
        return super().origin()

    def check_files(self) -> None:
        self.check_complete()
        if self.control != "random":
            checkpoints.open_shards(Path(self.location))

    def config(self):
        self.check_files()
        return checkpoints.read_config(Path(self.location))

    def tokenizer(self):
        return checkpoints.read_tokenizer(Path(self.location))

    def weights(self, config) -> dict:
        tensors = checkpoints.tensors(Path(self.location), config)
        return {"pretrained_model_name_or_path": None, "state_dict": tensors}


@dataclass(frozen=True)
class Hub(ModelSource):
    """A repository of the Hugging Face hub."""

    kind = "hub"
    entry = "hub"

    @classmethod
    def at(cls, name: str) -> Self | None:
        if name.count("/") != 1 or name.startswith((".", "/", "~")) or name.endswith("/"):
            return None
        location, _, revision = name.partition("@")
        return cls(name, location.split("/")[1], location, revision=revision or None)

    def origin(self) -> dict[str, str]:
        return {"source": f"hub:{self.location}", "revision": self.revision or "main"}

    def at_commit(self) -> Self:
        from transformers.utils.hub import resolve_revision

        found = resolve_revision(self.location, self.revision)
        return replace(self, revision=getattr(found, "resolved", found))

    def way_out(self) -> str:
        control = str(self.revision).startswith(("rand", "perm"))
        hint = "if its control was meant, write @random or @permuted; else " if control else ""
        return (
            f"{hint}connect to a network, set HF_TOKEN for a gated model, or download {self.location} "
            "elsewhere and give its local directory"
        )


_KINDS: tuple[type[ModelSource], ...] = (Wheels, Gguf, Meta, Directory, Hub)


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
    original, control, seed = controls.split(model)
    if control:
        return _control(model, resolve(original), control, seed)
    known = aliases()
    if model in known:
        return _from_alias(model, dict(known[model]))
    if source := _at(model):
        return source
    stem, _, word = model.rpartition("@")
    if stem in known or stem and Path(stem).expanduser().exists():
        raise InputError(f"model {model!r}: {one_of('control', word, controls.WORDS)}; with a seed: @random-1")
    accepted = "a hub id owner/name, a directory, a .gguf file; or one of these with @random or @permuted"
    if model.startswith(("/", "~", ".")) or model.count("/") > 1:
        raise InputError(
            f"model {model!r}: there is no {Path(model).expanduser()}; accepted: an alias, {accepted}"
        )
    raise InputError(f"{one_of('model', model, known)}; or {accepted}")


def _at(place: str) -> ModelSource | None:
    return next((source for kind in _KINDS if (source := kind.at(place))), None)


def _from_alias(name: str, entry: dict) -> ModelSource:
    if "path" in entry:
        path = project.root() / Path(entry.pop("path")).expanduser()
        found = _at(str(path))
        if found is None:
            raise InputError(f"model {name!r}: data/models.yml gives its path as {path}, where nothing is")
        return replace(found, name=name, **entry)
    (kind,) = (kind for kind in _KINDS if kind.entry in entry)
    return kind.of_entry(name, entry.pop(kind.entry), **entry)


def _control(name: str, original: ModelSource, control: str, seed: int) -> ModelSource:
    if original.control:
        raise InputError(f"model {name!r} asks for the control of a control: leave one of them out")
    title = f"{original.title}, {controls.WORDS[control]}" + (f" (seed {seed})" if seed else "")
    return replace(original, name=name, title=title, control=control, control_seed=seed)


def _snapshot(name: str, folder: Path) -> Path:
    """The model in a folder of the hub's own cache."""
    repository = folder.parent if folder.name == "snapshots" else folder
    found = [path.parent for path in sorted(repository.glob("snapshots/*/config.json"))]
    branch = repository / "refs" / "main"
    main = [path for path in found if branch.is_file() and path.name == branch.read_text().strip()]
    if len(found) > 1 and not main:
        raise InputError(
            f"model {name!r}: the directory holds {len(found)} snapshots of a hub repository: give one of them, "
            f"such as {found[-1]}"
        )
    if not found:
        raise InputError(f"model {name!r}: the directory holds no config.json and no consolidated.*.pth")
    return (main or found)[0]


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
