"""Meta's checkpoints: joined, turned and cut, they are the model that transformers knows."""

import base64
import contextlib
import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
import transformers

from token_geometry.base.errors import InputError
from token_geometry.models import checkpoints, loading, sources
from token_geometry.requests.extraction import Extraction
from token_geometry.states.model import LanguageModel
from token_geometry.texts import corpora

TOKENS = np.random.default_rng(0).integers(3, 512, size=60)

TEXTS = [
    "The city of Trieste is in Italy.",
    "  two  spaces\n\nnew lines, 1234 digits\t",
    "naïve café — “quoted” 日本語 🦙",
    " leading, and trailing ",
]


def hidden_states(model):
    with torch.inference_mode():
        output = model(torch.from_numpy(TOKENS)[None], output_hidden_states=True)
    return torch.cat(output.hidden_states)


def load(folder, n_layers=None, dtype="float32"):
    return LanguageModel(sources.resolve(str(folder)), device="cpu", n_layers=n_layers, dtype=dtype)


# Weights


@pytest.mark.slow
@pytest.mark.parametrize("embeddings_by_row", [False, True], ids=["llama-2", "llama-3"])
@pytest.mark.parametrize("n_files", [1, 2])
def test_states_of_a_checkpoint_are_those_of_transformers_bit_for_bit(
    n_files, embeddings_by_row, write_meta, tmp_path
):
    model = write_meta(tmp_path, n_files=n_files, embeddings_by_row=embeddings_by_row)
    expected = hidden_states(model)
    found = load(tmp_path).forward(TOKENS)
    assert torch.equal(found.hidden, expected)
    with torch.inference_mode():
        ids = torch.from_numpy(TOKENS)[None]
        assert found.loss == pytest.approx(float(model(ids, labels=ids).loss), abs=1e-5)
    for n_layers in range(4):
        part = load(tmp_path, n_layers).forward(TOKENS).hidden
        assert torch.equal(part, expected[: n_layers + 1])


def test_params_decide_the_network(write_meta, tmp_path):
    config = loading.load_config(sources.resolve(str(written(write_meta, tmp_path))))
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (512, 64, 176)
    assert (config.num_hidden_layers, config.num_attention_heads, config.num_key_value_heads) == (4, 4, 2)
    assert config.rms_norm_eps == 1e-6 and config.rope_parameters["rope_theta"] == 10000


# published params.json → width of the feed-forward layer and base of the rotary embedding
PUBLISHED = {
    "LLaMA-7B": ({"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32}, 11008, 10000),
    "LLaMA-2-13B": ({"dim": 5120, "multiple_of": 256, "n_heads": 40, "n_layers": 40}, 13824, 10000),
    "LLaMA-2-70B": (
        {"dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8}
        | {"n_layers": 80},
        28672,
        10000,
    ),
    "Llama-3-8B": (
        {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "multiple_of": 1024}
        | {"ffn_dim_multiplier": 1.3, "norm_eps": 1e-05, "rope_theta": 500000.0},
        14336,
        500000,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_params_give_the_published_width(name, write_meta, tmp_path):
    params, width, theta = PUBLISHED[name]
    write_meta(tmp_path, n_files=1)
    (tmp_path / "params.json").write_text(json.dumps(params | {"vocab_size": 32000}))
    config = loading.load_config(sources.resolve(str(tmp_path)))
    assert config.intermediate_size == width
    assert config.rope_parameters["rope_theta"] == theta
    assert config.num_key_value_heads == params.get("n_kv_heads", params["n_heads"])


def test_a_checkpoint_has_controls(write_meta, tmp_path):
    source = sources.resolve(f"{written(write_meta, tmp_path)}@random")
    config = loading.load_config(source)
    control = loading.load_model(source, dtype="float32", device="cpu")
    assert control.config.num_hidden_layers == config.num_hidden_layers == 4
    assert float(control.model.embed_tokens.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_the_identity_of_a_checkpoint_follows_its_weights(write_meta, tmp_path):
    written(write_meta, tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    before = sources.resolve(str(tmp_path / "one")).identity()
    assert sources.resolve(str(tmp_path / "other")).identity() == before
    write_meta(tmp_path / "other", n_files=2, dtype=torch.float16)
    assert sources.resolve(str(tmp_path / "other")).identity() != before


# Tokenizers


def test_a_tokenizer_up_to_llama_2_splits_as_sentencepiece_does(write_meta, sentencepiece_model, tmp_path):
    from sentencepiece import SentencePieceProcessor

    tokenizer = loading.load_tokenizer(sources.resolve(str(written(write_meta, tmp_path))))
    expected = SentencePieceProcessor(model_proto=sentencepiece_model)
    texts = [*TEXTS, *list(corpora.load_corpus("python-docs").texts.values())[:5]]
    for text in texts:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected.encode(text)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


@pytest.fixture
def ranks():
    """Ranks of byte sequences, as Llama 3 has them: the bytes, then what is joined."""
    joined = [b"he", b" t", b"in", b" the", b"er", b"ci", b"ty", b"city", b" city", b"12", b"34", b"  "]
    return {token: rank for rank, token in enumerate([*(bytes([byte]) for byte in range(256)), *joined])}


def test_a_tokenizer_of_llama_3_splits_as_tiktoken_does(write_meta, ranks, tmp_path):
    import tiktoken

    # 268 ranks and 256 special tokens
    config = transformers.LlamaConfig(
        vocab_size=524, hidden_size=64, intermediate_size=176, num_hidden_layers=1, num_attention_heads=4
    )
    write_meta(tmp_path, n_files=1, config=config, embeddings_by_row=True, vocab_size=524)
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in ranks.items()]
    (tmp_path / "tokenizer.model").write_text("\n".join(lines) + "\n")
    tokenizer = loading.load_tokenizer(sources.resolve(str(tmp_path)))
    words = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    expected = tiktoken.Encoding("tiny", pat_str=words, mergeable_ranks=ranks, special_tokens={})
    for text in [*TEXTS, *list(corpora.load_corpus("python-docs").texts.values())[:5]]:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected.encode(text)
    special = {"<|begin_of_text|>": 0, "<|end_of_text|>": 1, "<|reserved_special_token_0|>": 2}
    special |= {"<|start_header_id|>": 6, "<|eot_id|>": 9, "<|reserved_special_token_250|>": 255}
    assert {token: tokenizer.convert_tokens_to_ids(token) - 268 for token in special} == special
    assert tokenizer.bos_token_id == 268 and len(tokenizer) == 524


# Bad input


def written(write_meta, folder, **options):
    write_meta(folder, **({"n_files": 2} | options))
    return folder


class RunsCode:
    """An object that makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickled_object_is_refused_and_not_run(write, write_meta, tmp_path, refused):
    folder = written(write_meta, tmp_path / "llama")
    trace = tmp_path / "trace"
    write({"norm.weight": RunsCode(trace)}, folder / "consolidated.00.pth")
    request = Extraction(model=str(folder), corpus="sotu", output=str(tmp_path / "out"), device="cpu")
    for load_any in (request.check, lambda: load(folder)):
        with refused("consolidated.00.pth", "pickled object", "run code"):
            load_any()
    assert not trace.exists()


def test_a_file_of_something_else_than_named_tensors_is_refused(write_meta, tmp_path, refused):
    folder = written(write_meta, tmp_path)
    torch.save([torch.zeros(3)], folder / "consolidated.01.pth")
    with refused("consolidated.01.pth", "no tensors by name"):
        load(folder)


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_refused(share, write_meta, tmp_path, refused):
    folder = written(write_meta, tmp_path)
    content = (folder / "consolidated.01.pth").read_bytes()
    (folder / "consolidated.01.pth").write_bytes(content[: int(share * len(content))])
    with refused("consolidated.01.pth", "cut short"):
        load(folder)


def test_whatever_torch_raises_of_a_damaged_file_is_one_line(write_meta, tmp_path, refused):
    path = written(write_meta, tmp_path) / "consolidated.01.pth"
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        start = whole.index(archive.read(pickled))
    for place in range(start, start + 120):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(InputError):
            checkpoints.open_shards(tmp_path)
    path.write_bytes(whole[: start - 40] + bytes(20) + whole[start - 20 :])
    with refused("consolidated.01.pth", "could not be read"):
        checkpoints.open_shards(tmp_path)


@pytest.mark.parametrize("name", ["params.json", "tokenizer.model", "consolidated.00.pth"])
def test_a_file_that_is_missing_is_named(name, write_meta, tmp_path, refused):
    folder = written(write_meta, tmp_path)
    (folder / name).unlink()
    with refused(f"model {str(folder)!r}", name):
        sources.resolve(str(folder))


def test_a_last_file_that_is_missing_is_noticed(write_meta, tmp_path, refused):
    folder = written(write_meta, tmp_path)
    (folder / "consolidated.01.pth").unlink()
    with refused(folder, "a file is missing"):
        load(folder)


def test_a_tensor_that_is_missing_is_not_made_up(write_meta, tmp_path, refused):
    folder = written(write_meta, tmp_path)
    shard = torch.load(folder / "consolidated.01.pth")
    del shard["layers.3.feed_forward.w2.weight"]
    torch.save(shard, folder / "consolidated.01.pth")
    with refused(folder, "layers.3.mlp.down_proj.weight"):
        load(folder)
    assert load(folder, 3).forward(TOKENS).hidden.shape[0] == 4  # it is in no block that is read


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"hidden_dim": 14336}, ["'hidden_dim'", "transformers' format"]),
        ({"use_scaled_rope": True}, ["use_scaled_rope", "transformers' format"]),
        ({"vocab_size": 550}, ["512 entries", "550"]),
        ({"dim": 128}, ["64 of the 128 rows"]),
    ],
)
def test_params_of_another_model_are_refused(params, words, write_meta, tmp_path, refused):
    folder = written(write_meta, tmp_path, **params)
    with refused("params.json", *words):
        load(folder)


def test_params_that_cannot_be_read_are_refused(write_meta, tmp_path, refused):
    folder = written(write_meta, tmp_path)
    for content in ("{", "[]", '{"dim": 64}'):
        (folder / "params.json").write_text(content)
        with refused(folder / "params.json", "Meta released"):
            load(folder)


def test_a_tokenizer_that_is_none_is_refused(write_meta, tmp_path, refused):
    folder = written(write_meta, tmp_path)
    (folder / "tokenizer.model").write_bytes(b"\x00 nothing of the kind")
    with refused("tokenizer.model", "neither a SentencePiece model nor a list of ranks"):
        loading.load_tokenizer(sources.resolve(str(folder)))


def test_the_alias_of_the_published_files_says_where_to_put_them(refused):
    source = sources.resolve("llama-7b-pth")
    assert (source.kind, source.shape["layers"]) == ("meta", 32)
    with refused("llama-7b-pth", "data/weights/llama-7b", "consolidated"):
        loading.load_config(source)
