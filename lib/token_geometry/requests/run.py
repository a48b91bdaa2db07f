"""A run, as its requests know it: what all of them have in common, and what each kind is to do."""

from dataclasses import dataclass, field, fields

from token_geometry.base import files

CONFOUNDS = files.table(__file__)
"""What may go with the loss of any prompt, beside the numbers of its corpus, and the names that a reader sees."""


@dataclass(frozen=True, kw_only=True)
class OfPrompts:
    """What everything is to be told that draws prompts of a corpus."""

    corpus: str  # alias, hub id, or path: a `.jsonl`, `.parquet`, `.csv` or `.txt` file, or a directory of them
    column: str = "text"  # column of the texts, where the corpus has columns
    n_tokens: int  # tokens of each prompt, special tokens not counted
    seed: int = 0  # seed of the draw of prompts, and of what else is drawn: shuffles, manifolds
    device: str = "auto"  # torch device


@dataclass(frozen=True, kw_only=True)
class Shared(OfPrompts):
    """What every extraction is to be told, and a run tells all of its own."""

    dtype: str = "float32"  # type of the forward pass
    num_processes: int = 1  # processes that share the prompts: each has its own GPU, or its part of the cores
    gpus_per_model: int = 1  # GPUs that the model of one process is spread over, where it is too large for one
    keep_neighbors: bool = True  # whether shards hold the neighbor tables, from which new observables can be had;
    # else only the observables of the prompt, a hundredth of them
    final_norm: bool = True  # whether the last layer is the state after the final norm; else the one before


@dataclass(frozen=True, kw_only=True)
class Run(Shared):
    """One YAML file of `data/runs`; field names are its keys, and beside them stand those of the requests."""

    name: str  # of the file, and of the Quarto profile that chooses it
    title: str  # name that a reader sees
    models: list[str]  # in the order of the charts
    description: str = ""  # one paragraph about the run
    # what the chapter on it holds fixed (see `CONFOUNDS`); empty: all that there is
    confounds: list[str] = field(default_factory=list)
    # what each kind of request is to do, under its keys (see the classes in `requests`)
    sections: dict[str, dict] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # what is to be said of the file: keys by their old names

    @property
    def shared(self) -> dict:
        """Values that all requests of the run have in common, by name of the parameter."""
        return {f.name: getattr(self, f.name) for f in fields(Shared)}
