"""Headers of GGUF files: what they say, and files that are not whole."""

import gguf
import numpy as np
import pytest

from token_geometry.models import sources
from token_geometry.models.gguf import header as gguf_header
from token_geometry.requests.extraction import Extraction


@pytest.fixture
def written(tmp_path):
    """A GGUF file of a tiny model, as the package `gguf` writes it."""
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(32)
    writer.add_float32("rope", 0.5)
    writer.add_bool("yes", True)
    writer.add_array("tokens", ["a", "bé", ""])
    writer.add_array("scores", [0.5, 1.5])
    writer.add_array("nested", [[1, 2], [3, 4]])
    writer.add_string("last", "after the arrays")
    writer.add_tensor("token_embd.weight", np.ones((7, 32), np.float32))
    rows = np.arange(64, dtype=np.float32).reshape(2, 32)
    quantized = gguf.quantize(rows, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.w", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_header_says_what_the_package_gguf_reads(written):
    header, expected = gguf_header.read(written), gguf.GGUFReader(written)
    found = {key: field.contents() for key, field in expected.fields.items() if not key.startswith("GGUF.")}
    # strings, and arrays of arrays, are stepped over
    assert header.metadata == found | {"tokens": None, "nested": None}
    assert header.tensors == {t.name: tuple(t.shape.tolist()) for t in expected.tensors}
    assert header.shape() == {"layers": 2, "width": 32, "vocabulary": 7, "parameters": 7 * 32 + 64}


def test_a_file_of_which_any_part_is_missing_is_refused_before_anything_long_begins(written, tmp_path, refused):
    whole = written.read_bytes()
    gguf_header.read(written)
    short = tmp_path / "short.gguf"
    for n_bytes in [*range(0, len(whole), 97), len(whole) - 40]:  # the last 30 bytes fill up the file
        short.write_bytes(whole[:n_bytes])
        with refused("short.gguf", "cut short"):
            gguf_header.read(short)
    request = Extraction(model=str(short), corpus="sotu", output=str(tmp_path / "out"), device="cpu")
    with refused("short.gguf", "cut short", f"{len(whole) - 40} of"):
        request.check()


def test_numbers_of_parts_that_are_none_are_refused_in_one_line(tmp_path, refused):
    path = tmp_path / "parts.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("split.count", "two")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with refused("parts.gguf", "could not be read"):
        gguf_header.read(path)


@pytest.mark.parametrize("content", [b"PK\x03\x04" + bytes(60), b"GGUF" + bytes([9, 0, 0, 0]) + bytes(60)])
def test_a_file_of_another_format_or_version_is_refused(content, tmp_path, refused):
    (tmp_path / "other.gguf").write_bytes(content)
    with refused("other.gguf", "another format"):
        sources.resolve(str(tmp_path / "other.gguf")).check_files()
