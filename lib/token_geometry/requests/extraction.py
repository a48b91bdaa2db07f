"""The request of an extraction, and the job that it becomes when it is resolved."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from token_geometry.base import InputError, store, wheels
from token_geometry.models import devices, loading, sources, tuned_lens
from token_geometry.models.source import ModelSource
from token_geometry.requests import protocol, run, sizes
from token_geometry.texts import corpora, shuffling


@dataclass(frozen=True, kw_only=True)
class Extraction(run.Shared, protocol.Request):
    """What to extract. Field names are the parameters of `notebooks/extraction.ipynb`."""

    notebook, old_names = "extraction", {"shard": "part", "n_shards": "n_parts"}
    none = {"n_prompts": "all", "batch_size": "what fits"}

    model: str  # alias, hub id, directory or GGUF file; with `@random` or `@permuted` its control
    n_prompts: int | None = 16  # how many prompts to draw; None for all that are long enough
    n_tokens: int = 1024
    shuffle_levels: Sequence[int] = (0,)  # levels S of the block shuffle; 0 leaves the text as it is
    n_permutations: int = 1  # permutations of each prompt at every shuffle level above 0
    batch_size: int | None = None  # prompts of one forward pass; None: one on a CPU, what fits on a GPU
    part: int = 0  # which part of the prompts this job takes, from 0; its `output` is that of the other parts
    n_parts: int = 1  # how many parts independent jobs share the prompts in
    overwrite: bool = False  # replace shards of another recipe that the directory holds
    filter_models: Sequence[str] = ()  # further models under whose tokenizers a prompt must be long enough
    prompt_ids: Sequence[str | int] = ()  # ids of the texts to read, in this order; empty: texts are drawn
    tuned_lens: str = ""  # directory or hub id of a tuned lens for latent predictions; empty: the logit lens

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.model, *self.filter_models)))

    @property
    def ids(self) -> list[str]:
        """`prompt_ids` as the corpus has them."""
        return [str(key) for key in self.prompt_ids]

    @property
    def orders(self) -> list[tuple[int, int]]:
        """Shuffle level and number of the permutation of every pass of a prompt."""
        return [(level, n) for level in self.shuffle_levels for n in range(self.n_permutations if level else 1)]

    @property
    def n_passes(self) -> int | None:
        """Prompts times orders; None where the corpus decides how many prompts there are."""
        n_prompts = len(self.prompt_ids) or self.n_prompts
        return None if n_prompts is None else n_prompts * len(self.orders)

    def resolve(self, *, n_models: int | None = None, place: int = 0, dry: bool = False) -> "Job":
        """Check the request and find out what its names stand for; weights and tokenizers are not loaded.

        Of the processes `n_models` are on this machine (None: all), of which this is number `place`. `dry` leaves
        out what needs a download or a model's dequantization: the check of its length. An `InputError` names
        the parameter, its value and what is accepted."""
        self._check_values()
        n_models = n_models or self.num_processes
        chosen = devices.assign(self.device, gpus_per_model=self.gpus_per_model, n_models=n_models, place=place)
        found = [sources.resolve(name) for name in self.models]
        for source in found:
            source.check_files()
            source.check_tokenizer()
            if not dry or (source.kind != "hub" and source.is_made()):
                config = loading.load_config(source)
                loading.check_length(source, config, self.n_tokens)
                if self.tuned_lens and source is found[0] and not (dry and tuned_lens.is_of_hub(self.tuned_lens)):
                    tuned_lens.read(self.tuned_lens, source, config)
        return Job(self, found[0], tuple(found[1:]), tuple(chosen))

    def check(self) -> None:
        self.resolve(dry=True)
        check_corpus(self.corpus, None if self.prompt_ids else self.n_prompts, column=self.column)

    def recipe(self, reads: Sequence[protocol.Request] = ()) -> dict:
        """What decides the numbers of every shard."""
        return Job(self, sources.resolve(self.model), (), ()).recipe

    def plan_recipe(self) -> dict:
        """What decides which shards there are, and their numbers."""
        return Job(self, sources.resolve(self.model), (), ()).plan_recipe

    def estimate(self) -> protocol.Estimate:
        if (n_passes := self.n_passes) is None:
            n_passes = len(corpora.find_corpus(self.corpus, column=self.column).texts) * len(self.orders)
        shape = sizes.shape_of(sources.resolve(self.model))
        return self.estimate_of(shape, n_passes, n_at_once=self.batch_size or 1)

    def estimate_of(self, shape: dict[str, int], n_passes: int, *, n_at_once: int = 1) -> protocol.Estimate:
        """What so many forward passes take, `n_at_once` at a time, of a model with a shape of `sizes.shape_of`."""
        layers, n_tokens, item = shape["layers"] + 1, self.n_tokens, 4 if self.dtype == "float32" else 2
        prompt = sizes.bytes_of_prompt(layers=layers, n_tokens=n_tokens, width=shape["width"], item=item)
        prompt += sizes.bytes_of_geometry(n_tokens)
        of_lens = shape["layers"] * shape["width"] ** 2 if self.tuned_lens else 0
        memory = sizes.PROCESS_BYTES + (shape["parameters"] + of_lens) * item + n_at_once * prompt
        disk = n_passes * sizes.bytes_of_shard(layers, n_tokens, keep_neighbors=self.keep_neighbors)
        work = shape["parameters"] * n_passes * n_tokens
        return protocol.Estimate(memory=memory, disk=disk, passes=n_passes, work=work)

    def check_number_of_processes(self, num_processes: int, n_passes: int) -> None:
        """Refuse more processes or parts than there are prompts to share."""
        n_here = n = len(range(self.part, n_passes, self.n_parts))
        if num_processes > n_here:
            given, parts = f"num_processes is {num_processes}", f" in part {self.part} of {self.n_parts}"
            if not n_here:
                given, n = f"n_parts is {self.n_parts}", n_passes
            what = f"{n} prompts (shuffle levels counted) to share{parts * (n_here > 0 and self.n_parts > 1)}"
            raise InputError(f"{given} and there are {what}; accepted: 1 to {n}")

    def _check_values(self) -> None:
        if not self.output:
            raise InputError("output is empty: give the directory that the shards go into")
        store.check_writable(Path(self.output) / "shard.nc")
        self.check_bounds(n_prompts=1, seed=0, n_tokens=4, num_processes=1, gpus_per_model=1)
        self.check_bounds(n_parts=1, batch_size=1, n_permutations=1)
        if not self.shuffle_levels or len(set(self.shuffle_levels)) < len(self.shuffle_levels):
            raise InputError(f"shuffle_levels is {[*self.shuffle_levels]}; accepted: one or more different levels")
        shuffling.check_shuffle_levels(self.shuffle_levels, self.n_tokens)
        if self.dtype not in loading.DTYPES:
            raise InputError(f"dtype is {self.dtype!r}; accepted: {', '.join(loading.DTYPES)}")
        if twice := [key for key in self.ids if self.ids.count(key) > 1]:
            raise InputError(f"prompt_ids holds {twice[0]!r} twice; accepted: different ids of the corpus")
        if not 0 <= self.part < self.n_parts:
            raise InputError(f"part is {self.part} and n_parts {self.n_parts}; accepted: 0 to {self.n_parts - 1}")
        if self.n_passes is not None:
            self.check_number_of_processes(self.num_processes, self.n_passes)


@dataclass(frozen=True)
class Job:
    """An extraction that was checked, with what its names stand for, each of which is found out once."""

    request: Extraction
    source: ModelSource
    filters: tuple[ModelSource, ...]  # further models under whose tokenizers a prompt must be long enough
    devices: tuple[str, ...]  # those of this process

    @cached_property
    def corpus(self) -> corpora.Corpus:
        """The texts, which are read when they are asked for."""
        return corpora.find_corpus(self.request.corpus, column=self.request.column)

    @cached_property
    def shape(self) -> dict[str, int]:
        return sizes.shape_of(self.source)

    @cached_property
    def recipe(self) -> dict:
        """What decides the numbers of every shard."""
        recipe = {"model": self.source.identity(), "corpus": self.corpus.identity()}
        recipe |= {name: getattr(self.request, name) for name in ("n_tokens", "seed", "dtype")}
        if self.request.tuned_lens:
            recipe |= {"tuned_lens": wheels.sha256_of_file(tuned_lens.find(self.request.tuned_lens)[1])}
        return recipe if self.request.final_norm else recipe | {"final_norm": False}

    @cached_property
    def plan_recipe(self) -> dict:
        """What decides which shards there are, and their numbers."""
        request = self.request
        # ids given take the place of the number
        drawn = {"prompt_ids": request.ids} if request.prompt_ids else {"n_prompts": request.n_prompts}
        lists = {name: list(getattr(request, name)) for name in ("shuffle_levels", "filter_models")}
        several = {"n_permutations": request.n_permutations} if request.n_permutations > 1 else {}
        return self.recipe | drawn | lists | several


def check_corpus(corpus: str, n_prompts: int | None, *, column: str = "text") -> None:
    """Refuse a corpus that there is not, or that has fewer texts than are asked for, without a download."""
    found = corpora.find_corpus(corpus, column=column)
    if n_prompts is not None and corpora.is_at_hand(corpus) and (n := len(found.texts)) < n_prompts:
        raise InputError(f"n_prompts is {n_prompts}, and corpus {corpus!r} has {n} texts; accepted: 1 to {n}")
