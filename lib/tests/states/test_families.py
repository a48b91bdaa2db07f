"""Every causal family that transformers registers is read as transformers does, or refused in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from token_geometry.base import project

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "families.py"

FEW = {
    "llama": "equal",
    "gpt2": "equal",
    "gemma3": "equal",  # with a tower for images
    "mixtral": "equal",  # experts
    "mamba": "equal",
    "qwen3_next": "equal",  # blocks of two kinds
    "whisper": "equal",  # a decoder
    "roberta": "refused",
    "gemma3n_text": "refused",
    "musicgen": "refused",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The table that the program makes of a few families, by type and setting."""
    path = tmp_path_factory.mktemp("families") / "families.json"
    command = [sys.executable, str(PROGRAM), "--output", str(path), "--only", *FEW]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def committed():
    return json.loads((project.root() / "data" / "families.json").read_text())


def test_representative_families_are_equal_to_transformers_or_refused(found):
    rows = {row["model_type"]: row for row in found["families"] if not row["setting"]}
    assert {name: row["outcome"] for name, row in rows.items()} == FEW
    for name, row in rows.items():
        assert "\n" not in row["line"] and bool(row["line"]) == (FEW[name] == "refused")
        if row["outcome"] == "equal":
            assert set(row["dtypes"].values()) == set(row["parts"].values()) == {"equal"}
    assert rows["mamba"]["hidden_states"] == "first block" and rows["llama"]["hidden_states"] == "embeddings"


def test_an_encoder_is_read_once_it_is_a_decoder(found):
    (row,) = [row for row in found["families"] if row["model_type"] == "roberta" and row["setting"]]
    assert row["outcome"] == "equal" and row["parts"]["float32"] == "equal"


def test_the_table_of_the_book_is_of_this_version_and_has_every_family(committed):
    assert committed["transformers"] == transformers.__version__
    assert {row["model_type"] for row in committed["families"]} == set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert [row for row in committed["families"] if row["outcome"] == "failed"] == []


def test_the_table_of_the_book_says_of_a_few_families_what_the_program_finds_now(found, committed):
    of_book = {(row["model_type"], str(row["setting"])): row for row in committed["families"]}
    for row in found["families"]:
        assert of_book[row["model_type"], str(row["setting"])] | {"line": row["line"]} == row
