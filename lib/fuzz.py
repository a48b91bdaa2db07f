"""Fuzzing: bytes that atheris makes, for the readers of files that are this project's own.

    pip install atheris
    python lib/fuzz.py                          # a minute for each reader
    python lib/fuzz.py --seconds 3600 --only gguf

Whatever a file holds, its reader takes it, or says in one line what is wrong with it. An input for which it does
neither, takes 20 seconds or 3 GB is kept and named. The exit status is the number of readers that have such an
input.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

LIB = Path(__file__).resolve().parent

LIMITS = ["-timeout=20", "-rss_limit_mb=3000", "-max_len=65536"]


def gguf(path: Path, content: bytes) -> None:
    """The header of a GGUF file."""
    from token_geometry.models import kinds
    from token_geometry.models.gguf import tokenizers

    path = path.with_suffix(".gguf")
    path.write_bytes(content)
    source = kinds.Gguf.at(str(path))
    source.splitting()
    tokenizers.check(path, kinds.header.read(path))
    source.known_shape()


def pth(path: Path, content: bytes) -> None:
    """A file of Meta's weights."""
    _meta(path, {"consolidated.00.pth": content})


def params(path: Path, content: bytes) -> None:
    """The file that describes Meta's weights."""
    _meta(path, {"params.json": content})


def _meta(path: Path, changed: dict[str, bytes]) -> None:
    from token_geometry.models import kinds, loading

    folder = path.with_suffix(".meta")
    folder.mkdir(exist_ok=True)
    for name, whole in (META | changed).items():
        if name in changed or not (folder / name).is_file():
            (folder / name).write_bytes(whole)
    source = kinds.Meta.at(str(folder))
    source.check_files()
    config = loading.load_config(source)
    with source.readable_errors():
        source.weights(config)


def shard(path: Path, content: bytes) -> None:
    """A shard, or any other result."""
    from token_geometry.base import store
    from token_geometry.extraction import plan

    # a file of its own, as in a run: what is written over a file that HDF5 could not read, it takes for that
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    store.read_attrs(path)
    plan.held_observables(store.read(path))


def plan(path: Path, content: bytes) -> None:
    """What a folder of shards is to hold."""
    from token_geometry.extraction import plan

    (path.parent / plan.PLAN).write_bytes(content)
    plan.shard_files(path.parent, plan.read_plan(path.parent))


def run(path: Path, content: bytes) -> None:
    """The declaration of a run."""
    from token_geometry.runs import declaration

    Path("data/runs/small.yml").write_bytes(content)
    declaration.load("small")


def statements(path: Path, content: bytes) -> None:
    """True and false statements."""
    from token_geometry.texts import statements

    path = path.with_suffix(".csv")
    path.write_bytes(content)
    statements.load(str(path)).draw(4, seed=0)


def texts(path: Path, content: bytes) -> None:
    """A corpus in lines of JSON."""
    from token_geometry.texts import corpora

    path = path.with_suffix(".jsonl")
    path.write_bytes(content)
    corpora.load_corpus(str(path)).identity()


READERS: dict[str, Callable[[Path, bytes], None]] = {
    one.__name__: one for one in (gguf, pth, params, shard, plan, run, statements, texts)
}
META = {"params.json": b"{}", "tokenizer.model": b"x", "consolidated.00.pth": b""}


def attempt(reader: str, path: Path, content: bytes) -> bool:
    """Whether a reader takes a file; raises what is neither that nor a refusal in one line."""
    from token_geometry.base.errors import InputError

    try:
        READERS[reader](path, content)
    except InputError as error:
        if "\n" in str(error) or len(str(error)) > 2000:
            raise AssertionError(f"no line: {str(error)[:300]!r}") from error
        return False
    return True


def whole_files(folder: Path) -> dict[str, list[bytes]]:
    """Files that the readers take, to begin with."""
    import numpy as np
    import torch
    import xarray as xr
    import yaml
    from gguf import GGUFWriter

    from token_geometry.base import store
    from token_geometry.extraction.plan import PLAN, save_plan

    path = folder / "whole"
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_embedding_length(32)
    writer.add_array("nested", [[1, 2], [3, 4]])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(["a", "b"])
    writer.add_tensor("token_embd.weight", np.ones((7, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = {"gguf": [path.read_bytes()]}
    META["params.json"] = json.dumps(
        {"dim": 8, "n_layers": 1, "n_heads": 2, "multiple_of": 8, "norm_eps": 1e-6, "vocab_size": -1}
    ).encode()
    tensors = {"tok_embeddings.weight": torch.ones(4, 8), "layers.0.attention.wq.weight": torch.ones(8, 8)}
    torch.save(tensors, path)
    META["consolidated.00.pth"] = path.read_bytes()
    found |= {"pth": [META["consolidated.00.pth"]], "params": [META["params.json"]]}
    data = xr.Dataset({"distance": ("token", np.arange(4.0))}, attrs=store.make_attrs("t", {"seed": 0}))
    store.write(data, path)
    packed = folder / "packed"
    store.write(data, packed, compressed=True)
    found["shard"] = [path.read_bytes(), packed.read_bytes()]
    request = {"model": "m", "n_tokens": 16, "shuffle_levels": [0], "filter_models": []}
    numbers = {"n_examined": 1, "n_too_short": 0, "shards": [{"prompt": "a", "shuffle_level": 0, "file": "a.nc"}]}
    names = dict.fromkeys(("recipe_digest", "plan_digest", "model_title", "model_commit"), "x")
    save_plan(folder, {"recipe": {"model": {"source": "m"}}, "request": request} | names | numbers)
    (folder / "a.nc").touch()  # the shard, beside which the readers find it
    found["plan"] = [(folder / PLAN).read_bytes()]
    declared = {
        "title": "t", "models": ["m"], "corpus": "texts.jsonl", "n_tokens": 16,
        "extractions": {"all": {"n_prompts": 2, "shuffle_levels": [0]}},
        "controls": {"models": ["m@random"], "n_prompts": 1, "shuffle_levels": [0]},
        "truth": {"datasets": ["own.csv"], "n_statements": 8, "models": {"m": {"layer": 1}}},
        "calibration": {"n_prompts": 1, "n_points": 16},
    }  # fmt: skip
    found["run"] = [
        yaml.safe_dump(declared).encode(),
        *(one.read_bytes() for one in (LIB.parent / "data/runs").glob("*.yml")),
    ]
    found["statements"] = [b"statement,label\na b,0\nc d,1\ne f,0\ng h,1\ni j,0\nk l,1\n"]
    found["texts"] = [b'{"id": "a", "text": "a b"}\n{"id": 2, "text": "c"}\n']
    return found


def own_project(folder: Path) -> None:
    """Make a folder the project that runs are declared in, and the cache its own."""
    (folder / "data" / "runs").mkdir(parents=True)
    for name in ("models.yml", "corpora.yml"):
        (folder / "data" / name).write_bytes((LIB.parent / "data" / name).read_bytes())
    (folder / "_quarto.yml").write_text("project: {type: book}\n")
    os.environ["TOKEN_GEOMETRY_CACHE"] = str(folder / "cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.chdir(folder)


def fuzz(reader: str, options: list[str]) -> None:
    """Hand inputs of atheris to a reader; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["token_geometry", "gguf"]):
        from token_geometry.extraction import plan  # noqa: F401
        from token_geometry.models import kinds, loading  # noqa: F401
        from token_geometry.models.gguf import header, tokenizers  # noqa: F401
        from token_geometry.runs import declaration  # noqa: F401
        from token_geometry.texts import corpora, statements  # noqa: F401
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # of files that HDF5 keeps open
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        own_project(folder)
        (folder / "seeds").mkdir()
        for number, content in enumerate(whole_files(folder)[reader]):
            (folder / "seeds" / str(number)).write_bytes(content)
            attempt(reader, folder / "input", content)
        sys.stdout = open(os.devnull, "w")

        def try_one(content: bytes) -> None:
            attempt(reader, folder / "input", content)

        atheris.Setup([sys.argv[0], str(folder / "seeds"), *LIMITS, *options], try_one)
        atheris.Fuzz()


def main() -> int:
    """Fuzz the readers one after another; returns how many failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=READERS)
    parser.add_argument("--seconds", type=int, default=60, help="for each reader")
    parser.add_argument("--keep", type=Path, default=Path("fuzz"), help="folder for inputs that a reader fails at")
    parser.add_argument("--here", choices=READERS, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    if options.here:
        fuzz(options.here, rest)
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    n_failed = 0
    for name in options.only or READERS:
        keep = (options.keep / name).resolve()
        command = [
            sys.executable,
            __file__,
            "--here",
            name,
            f"-max_total_time={options.seconds}",
            f"-artifact_prefix={keep}-",
        ]
        keep.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        n_failed += done.returncode != 0
        tried = re.findall(r"(?:^#|number_of_executed_units: |Done )(\d+)", done.stderr, re.MULTILINE)
        print(
            f"{name}: {tried[-1] if tried else 0} inputs, {'one fails' if done.returncode else 'none fails'}",
            flush=True,
        )
        if done.returncode:
            print(done.stderr[-3000:], file=sys.stderr, flush=True)
    return n_failed


if __name__ == "__main__":
    sys.exit(main())
