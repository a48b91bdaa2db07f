"""The source of a model: what its kinds have in common."""

import contextlib
import os
import pickle
import re
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Self

from token_geometry.base import InputError, parameters
from token_geometry.base.lazy import transformers


@dataclass(frozen=True)
class ModelSource:
    """Where a model is and what decides its numbers; nothing of it is loaded yet.

    `name` is what the run calls it by: alias, hub id or path; `title` is the name that a reader sees, `location`
    the hub id or path, where there is one, and `revision` that of the hub. `prepend_bos` says whether BOS is fed
    first; None: decided by the model's family. `license` is a short note on the licence; `shape` holds `layers`,
    `width`, `vocabulary`, `parameters`, and `download` the bytes of the files that are downloaded, where they are
    known. `control` is `random` (untrained, weights drawn as before training), `permuted` (the weights of each
    tensor in random order), or empty: the model itself; `control_seed` is its seed.

    Of each class, `kind` is the word for the kind, and `entry` the key that an entry of `data/models.yml` gives
    the place by, where it can be of this kind."""

    name: str
    title: str
    location: str = ""
    _: KW_ONLY
    revision: str | None = None
    prepend_bos: bool | None = None
    license: str = ""
    shape: dict = field(default_factory=dict)
    download: int = 0
    control: str = ""
    control_seed: int = 0
    kind: ClassVar[str] = ""
    entry: ClassVar[str] = ""

    @classmethod
    def at(cls, name: str) -> Self | None:
        """The source that a hub id or path stands for; None, if it is of another kind."""
        return None

    @classmethod
    def of_entry(cls, name: str, place, *, noun: str, **rest) -> Self:
        """The source of an entry of `data/models.yml`, whose keys a message calls by `noun`."""
        return parameters.build(cls, {"name": name, "location": place} | rest, noun=noun)

    def identity(self) -> dict[str, str]:
        """Source, checksum or revision, control: what decides numbers; `InputError` if files are missing."""
        identity = self.origin()
        if self.prepend_bos is not None:  # else its family decides, which the files decide
            identity["prepend_bos"] = str(self.prepend_bos).lower()
        if self.control:
            identity["weights"] = f"{self.control}, seed {self.control_seed}"
        return identity

    def origin(self) -> dict[str, str]:
        """The identity of the model that this is, or is a control of."""
        raise NotImplementedError

    def check_files(self) -> None:
        """Refuse a local model whose files cannot be loaded, at once and without reading the weights."""

    def check_tokenizer(self) -> None:
        """Refuse a local model that has no tokenizer."""

    def known_shape(self) -> dict[str, int]:
        """`shape`, where it is known without the configuration; else nothing."""
        return self.shape

    def is_made(self) -> bool:
        """Whether `directory` has nothing to do."""
        return True

    def to_download(self) -> int | None:
        """Bytes to be downloaded first, 0 where they are not known; None where everything is at hand."""
        here = self.is_made() or os.path.exists(self.location)
        return None if here else self.download or 2 * self.shape.get("parameters", 0)  # in 16 bits

    def directory(self) -> str:
        """A directory or hub id from which transformers loads the model; GGUF is dequantized once."""
        return self.location

    def config(self):
        """The configuration, a transformers `PreTrainedConfig`."""
        given = {"revision": self.revision, "trust_remote_code": False}
        return transformers.AutoConfig.from_pretrained(self.directory(), **given)

    def tokenizer(self):
        """The tokenizer, a transformers `PreTrainedTokenizerBase`."""
        given = {"revision": self.revision, "trust_remote_code": False}
        return transformers.AutoTokenizer.from_pretrained(self.directory(), **given)

    def weights(self, config, n_blocks: int | None = None) -> dict:
        """What `from_pretrained` is to be given to find the weights of a model, or of its first blocks."""
        return {"pretrained_model_name_or_path": self.directory(), "revision": self.revision}

    def at_commit(self) -> Self:
        """The same model at the commit that its revision is now, from which so all files of an extraction come."""
        return self

    def way_out(self) -> str:
        """What to do where the model could not be loaded."""
        return "check that the files are whole"

    @contextlib.contextmanager
    def readable_errors(self, way_out: str = "") -> Iterator[None]:
        """Turn what transformers and the hub raise at loading into one line, which ends with the way out."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:
            if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
                way_out = "take dtype bfloat16, or spread it over more GPUs with gpus_per_model"
                raise InputError(f"model {self.name!r} is too large for the device's memory: {way_out}") from None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if isinstance(error, TypeError | AttributeError | LookupError | UnicodeError | ArithmeticError):
                which = f": {error}" * isinstance(error, KeyError)
                reason = f"a file is not of the form that its format has{which}"
            if isinstance(error, pickle.UnpicklingError):  # whose own words advise to open the file all the same
                reason = "a file holds a pickled object that is no tensor, not opened, since that could run code"
            way_out = way_out or self.way_out()
            if type(error).__name__.startswith("StrictDataclass"):  # further lines say the entry and its value
                said = " ".join(str(error).split())
                reason = re.sub(r"\w+Error: | doesn't match .*| expected \w+(, got \w+)?", "", said)
                way_out = "check its configuration"
            if isinstance(error, ImportError) or "quantiz" in reason:
                way_out = "provide what is missing, or give weights that are not quantized"
            raise InputError(f"model {self.name!r} could not be loaded ({reason}): {way_out}") from None
