"""Bad inputs of every kind, thousands: each is accepted and right, or refused in one line; none hangs.

What is right stands beside the inputs: of parameters a rule for each (`RIGHT`), of files a list of what they hold.
One in five is tried, and all of them, some 7,700 in three minutes, where the variable ALL_INPUTS is set.
"""

import contextlib
import gzip
import itertools
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import struct
import time
import zlib
from pathlib import Path

import gguf_files
import huggingface_hub
import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file, save_file

from token_geometry.base import parameters, project
from token_geometry.base.errors import InputError
from token_geometry.chapters.results import RunParameters
from token_geometry.extraction import extraction
from token_geometry.models import loading, sources
from token_geometry.requests.calibration import Calibration
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.reduction import Reduction
from token_geometry.requests.truth import Truth
from token_geometry.runs import declaration, forecast
from token_geometry.studies import calibration, truth
from token_geometry.texts import corpora, statements

pytestmark = pytest.mark.slow

EVERY = 1 if os.environ.get("ALL_INPUTS") else 5
"""One input in so many is tried, chosen by its name."""

SECONDS = 20
MEMORY = 3 << 30  # bytes that all inputs together may add to the peak

PYTHON = re.compile(
    r"Traceback|object at 0x|<class|NoneType|has no attribute|unexpected keyword|positional argument|not subscript"
    r"|not iterable|not supported between|modulo by zero|division by zero|invalid literal|out of range"
    r"|\[Errno|codec can't|must be real|up to -|not callable|cannot unpack|index out|expected str"
)
"""Words of Python and of libraries that say nothing to a user."""

WAY_OUT = re.compile(
    r"accepted|is missing|must hold|did you mean|looked for|quotation marks|\b(run|take|give|delete|set|choose|add"
    r"|rename|remove|lower|leave|convert|connect|make|check|put|write|double|fill|provide|raise|merge|change|use"
    r"|download|ask|spread|start|try)\b"
)


class Hang(BaseException):
    """Raised in an input that takes too long; no reader may take it for its own error."""


def _ring(*_):
    raise Hang


class Judge:
    """Tries inputs, and keeps what is wrong with what came of them."""

    def __init__(self):
        self.n, self.n_accepted, self.faults = 0, 0, []

    def __call__(self, what, act, *, thing="", right=None, hint=True, own_words=True):
        """`act` is accepted if `right` (None: if `act` itself finds so), or refused with `thing` in the line.

        Without `hint` the line need not say what to do: of what a file holds the reason is enough. Without
        `own_words` it may give the reason of a library in the library's words.
        """
        self.n += 1
        if zlib.crc32(str(what).encode("utf-8", "surrogateescape")) % EVERY and self.n > 1:
            return
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            act()
            self.n_accepted += 1
            if right is False:
                self.faults.append(f"{what}: accepted")
        except InputError as error:
            line = str(error)
            if right:
                self.faults.append(f"{what}: refused: {line}")
            elif (
                "\n" in line
                or str(thing) not in line
                or (own_words and PYTHON.search(line))
                or (hint and not WAY_OUT.search(line))
            ):
                self.faults.append(f"{what}: unclear: {line!r}")
            elif len(line) > 2000:
                self.faults.append(f"{what}: {len(line)} characters")
        except Hang:
            self.faults.append(f"{what}: hangs")
        except Exception as error:
            self.faults.append(f"{what}: {type(error).__name__}: {str(error)[:200]}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if time.monotonic() - started > SECONDS:
            self.faults.append(f"{what}: takes {time.monotonic() - started:.0f} s")


COUNTS: dict[str, int] = {}


@pytest.fixture(autouse=True)
def no_hub(monkeypatch):
    """What would ask the hub is refused at once, not after its retries."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def judge(request):
    """A `Judge` whose faults are the test's."""
    one, before = Judge(), signal.signal(signal.SIGALRM, _ring)
    yield one
    signal.signal(signal.SIGALRM, before)
    COUNTS[request.node.name] = one.n
    assert one.n, "nothing was tried"
    if one.faults:
        pytest.fail(f"{len(one.faults)} of {one.n}:\n" + "\n".join(one.faults[:60]), pytrace=False)


CONFIG = dict(
    vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
    max_position_embeddings=64,
)  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, save_tiny):
    """A tiny model, four texts, and statements."""
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(transformers.LlamaConfig(**CONFIG), folder / "model")
    lines = [json.dumps({"text": " ".join(f"w{n}" for n in range(start, start + 40))}) for start in range(2, 6)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    rows = [f"w{n} w{n + 1},{n % 2}" for n in range(2, 14)]
    (folder / "own.csv").write_text("\n".join(["statement,label", *rows]))
    return folder


# Parameters of notebooks

ODD = [
    None, True, False, 0, 1, 2, 3, 4, 8, 16, 33, -1, 10_000, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64,
    10**30, -(2**63), 0.5, 1.0, math.nan, math.inf, -math.inf, 1j, b"x", "", " ", "x", "0", "-1", "1e3",
    "auto", "cpu", "cpu:0", "cpu:99", "meta", "cuda", "cuda:0", "cuda:99", "hpu:0", "xla", "float32",
    "bfloat16", "float23", "true", "False", "none", "None", "null", "../x", "/", "~", "a\0b.nc", "\udc80",
    "é.nc", "a" * 5000, "a" * 300 + ".nc", "<script>", "@", "@random", "w/x@random-" + "9" * 30, "owner/name",
    "x.nc", "gride", "dadapy", [], [0], [0, 0], [0, 1], [1], [-1], [10_000], [10**9], [2**64], ["x"], [None],
    [[0]], [True], [1.0], (), (0,), {}, {"a": 1}, {0}, "[", "[]", "[0]", "[0, 1]", "[&a [*a]]", "['x']",
    ]  # fmt: skip
"""Values that a field may be given."""


def _whole(low, high=2**63 - 1, none=False):
    return lambda v: (none and v is None) or (isinstance(v, int) and not isinstance(v, bool) and low <= v <= high)


def _none(v):
    return v is None or isinstance(v, str) and v.lower() in ("none", "null")


def _listed(ok):
    def right(v):
        if isinstance(v, str) and v.startswith("["):
            with contextlib.suppress(yaml.YAMLError):
                v = yaml.safe_load(v)
        return isinstance(v, list | tuple) and ok(v)

    return right


def _levels(v):
    whole = all(isinstance(s, int) and not isinstance(s, bool) and 0 <= s <= 2 for s in v)
    return bool(v) and whole and len(set(v)) == len(v)


def _text(*words):
    return lambda v: isinstance(v, str) and v in words


_true = _listed(lambda v: not v)
FILE = _text("x.nc", "é.nc")
HAS_GPU = torch.cuda.is_available()
DEVICE = _text("auto", "cpu", "cpu:0", *(["cuda", "cuda:0"] if HAS_GPU else []))
BOOL = lambda v: isinstance(v, bool) or isinstance(v, str) and v.lower() in ("true", "false")  # noqa: E731
NAMES = _listed(lambda v: not v)
NEVER = lambda v: False  # noqa: E731

RIGHT = {
    Extraction: {
        "model": _text("owner/name"),  # of the hub, which a check does not ask
        "corpus": _text("owner/name"),
        "column": NEVER,  # the texts have but one
        "output": lambda v: isinstance(v, str) and v not in ("", "\udc80") and "\0" not in v and len(v) < 250,
        "n_prompts": lambda v: _none(v) or _whole(1, 4)(v),
        "n_tokens": _whole(4, 64),
        "shuffle_levels": _listed(_levels),
        "seed": _whole(0),
        "dtype": _text("float32", "bfloat16"),
        "device": DEVICE,
        "batch_size": lambda v: _none(v) or _whole(1)(v),
        "num_processes": _whole(1, 2),
        "gpus_per_model": _whole(1, 1),
        "part": _whole(0, 0),
        "n_parts": _whole(1),
        "overwrite": BOOL,
        "keep_neighbors": BOOL,
        "final_norm": BOOL,
        "filter_models": NAMES,
        "tuned_lens": None,  # which ids the hub has a lens for is not asked in a check
        "prompt_ids": None,  # which ids there are is found out with the tokenizer
    },
    Truth: {
        "model": NEVER,
        "layer": _whole(0, 3),
        "datasets": NEVER,
        "output": FILE,
        "n_statements": lambda v: _none(v) or _whole(4)(v),
        "seed": _whole(0),
        "device": DEVICE,
        "last_layer": lambda v: _none(v) or _whole(1, 3)(v),
    },
    Calibration: {
        "model": _text("owner/name"),
        "corpus": _text("owner/name"),
        "column": NEVER,
        "output": FILE,
        "n_prompts": _whole(1, 4),
        "n_tokens": _whole(8, 64),
        "n_points": _whole(8),
        "n_replicates": _whole(1),
        "dimensions": _listed(lambda v: [(type(part), part) for part in v] == [(int, 1)]),
        "seed": _whole(0),
        "device": DEVICE,
    },
    Reduction: {
        "extraction": None,
        "estimator": _text("gride", "dadapy"),
        "output": FILE,
    },
    RunParameters: {"run": _text("")},
}
"""Kind of request → field → whether a value is right; None: found out when it is carried out."""


def given_for(kind, tiny):
    same = {"model": str(tiny / "model"), "corpus": str(tiny / "texts.jsonl"), "device": "cpu", "n_tokens": 16}
    return {
        Extraction: same | {"output": "out", "n_prompts": 2},
        Truth: {**same, "layer": 1, "datasets": [str(tiny / "own.csv")], "output": "x.nc"},
        Calibration: same | {"output": "x.nc"},
        Reduction: {"extraction": "out", "output": "x.nc"},
        RunParameters: {},
    }[kind]


PARAMETERS = [(kind, name) for kind in RIGHT for name in kind.__dataclass_fields__]


def test_there_are_thousands_and_every_rule_is_of_a_parameter():
    for kind, rules in RIGHT.items():
        assert set(rules) <= set(kind.__dataclass_fields__), kind
    assert len(PARAMETERS) * len(ODD) > 3000


@pytest.mark.parametrize(("kind", "name"), PARAMETERS, ids=lambda part: getattr(part, "__name__", part))
def test_a_parameter(kind, name, tiny, judge, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {key: value for key, value in given_for(kind, tiny).items() if key in kind.__dataclass_fields__}
    rule = RIGHT[kind].get(name)  # a parameter without a rule has to be accepted or refused in one line

    def act(value):
        request = parameters.build(kind, given | {name: value}, noun="parameter")
        if kind is RunParameters:
            return declaration.load(request.run)
        return request.check()

    for value in ODD:
        right = None if rule is None else bool(rule(value))
        thing = {
            "datasets": "",
            "model": "",
            "filter_models": "",
            "corpus": "corpus",
            "run": "run",
            "last_layer": "layer",
        }.get(name, name)
        thing = "" if value == "/" else thing  # of which the place below it is named that cannot be read
        judge(f"{name} = {str(value)[:60]!r}", lambda value=value: act(value), thing=thing, right=right)


@pytest.mark.parametrize("seed", [2**32 - 1, 2**32, 2**63 - 1])
@pytest.mark.parametrize("kind", [Extraction, Truth, Calibration], ids=lambda kind: kind.__name__)
def test_a_seed_that_is_accepted_computes(kind, seed, tiny, judge, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {key: value for key, value in given_for(kind, tiny).items() if key in kind.__dataclass_fields__}
    small = {"n_points": 16, "n_replicates": 1, "dimensions": [1], "n_prompts": 1} if kind is Calibration else {}
    request = kind(**given | small | {"seed": seed})
    compute = {Extraction: extraction.extract, Truth: truth.measure, Calibration: calibration.measure_manifolds}[
        kind
    ]
    judge(f"{kind.__name__}, seed {seed}", lambda: compute(request), right=True)


@pytest.mark.parametrize("n_statements", [4, 5, 6, None])
@pytest.mark.parametrize("labels", ["01", "0011", "012", "0001"])
def test_the_fewest_statements_that_are_accepted_compute(labels, n_statements, tiny, judge, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"w{n} w{n + 1},{label}" for n, label in zip(range(2, 14), itertools.cycle(labels), strict=False)]
    Path("few.csv").write_text("\n".join(["statement,label", *rows]))
    given = given_for(Truth, tiny) | {"datasets": ["few.csv"], "n_statements": n_statements, "layer": 1}
    request = Truth(**{key: value for key, value in given.items() if key in Truth.__dataclass_fields__})

    def compute():
        found = truth.measure(request)
        assert 0 <= float(found["separation"].max()) <= 1

    judge(f"{labels}, n_statements {n_statements}", compute, thing="few")


# Files of runs

RUN = {
    "title": "t", "models": ["model"], "corpus": "texts.jsonl", "n_tokens": 16, "device": "cpu",
    "extractions": {"all": {"n_prompts": 2, "shuffle_levels": [0]}},
    "controls": {"models": ["model@random"], "n_prompts": 1, "shuffle_levels": [0]},
    "truth": {"datasets": ["own.csv"], "n_statements": 8, "models": {"model": {"layer": 1}}},
    "calibration": {"n_prompts": 1, "n_points": 16},
}  # fmt: skip
WRONG = [
    None, True, 0, 1, -1, 10**30, 0.5, math.nan, "", "x", "\udc80", [], [None], [0], ["x"], [[]], {},
    {"x": 1}, {0: 0},
]  # fmt: skip


def _places(node, path=()):
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            yield from _places(value, (*path, key))


def _with(node, path, value):
    if not path:
        return value
    return {**node, path[0]: _with(node[path[0]], path[1:], value)}


@pytest.fixture
def own_project(tiny, tmp_path, monkeypatch):
    """A project of its own around the tiny model."""
    (tmp_path / "data" / "runs").mkdir(parents=True)
    for name in ("models.yml", "corpora.yml"):
        shutil.copy(project.root() / "data" / name, tmp_path / "data" / name)
    (tmp_path / "_quarto.yml").write_text("project: {type: book}\n")
    for name in ("model", "texts.jsonl", "own.csv"):
        (tmp_path / name).symlink_to(tiny / name)
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _plan_run(entries):
    if isinstance(entries, dict):
        text = yaml.safe_dump(entries, allow_unicode=False).encode()
    else:
        text = entries
    Path("data/runs/small.yml").write_bytes(text)
    run = declaration.load("small")
    text, n_problems = forecast.describe(run)
    problems = [line[6:] for line in text.splitlines() if line.startswith("    ! ")]
    if n_problems:
        raise InputError(problems[0])


def test_the_run_that_is_spoiled_below_is_right(own_project, judge):
    judge("whole", lambda: _plan_run(RUN), right=True)


@pytest.mark.parametrize("key", RUN)
def test_a_value_in_a_file_of_a_run(key, own_project, judge):
    for path in [place for place in _places(RUN) if place[0] == key]:
        for value in WRONG:
            judge(f"{path} = {value!r}", lambda path=path, value=value: _plan_run(_with(RUN, path, value)))


TEXTS = [
    b"", b"\n", b"---\n---\n", b"3", b"[]", b"[1, 2]", b"null", b"a", b"\xff", b"\x00", b"title: \xff\xfe",
    b"{", b"[", b"'", b"title: 'a", b"title: a\ntitle: b", b"a: b: c", b"\ttitle: a", b"&a [*a]",
    b"&a {x: *a}", b"*a", b"? [1, 2]\n: 3", b"? {a: b}\n: 3", b"!!python/object/apply:os.system ['true']",
    b"!!binary x", b"!!timestamp x", b"!!int x", b"title: 2026-01-01", b"title: 1:30", b"1: 2", b"null: 1",
    b"true: 1", b"<<: {title: a}", b"<<: 3", b"title: !!set {a}", b"a" * 100_000, b"[" * 5000, b"{" * 5000,
    b"title: " + b"9" * 5000, "title: é".encode("latin-1"), "title: é".encode("utf-16"),
    b"%YAML 9.9\n---\ntitle: a", b"title: \x07", b"- - - -", b"title: |\n  a\n b",
]  # fmt: skip
BOMB = [b"a0: &a0 [x]"] + [b"a%d: &a%d [%s]" % (n, n, b",".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)]
TEXTS.append(b"\n".join(BOMB))


def test_a_file_of_a_run_that_is_no_run(own_project, judge):
    for text in TEXTS:
        judge(repr(text[:60]), lambda text=text: _plan_run(text), thing="small.yml", right=False)


@pytest.mark.parametrize("name", ["models.yml", "corpora.yml"])
def test_a_file_of_aliases_that_is_none(name, own_project, judge):
    for text in TEXTS:
        (own_project / "data" / name).write_bytes(text)
        judge(repr(text[:60]), lambda: (sources.resolve("model"), corpora.find_corpus("texts.jsonl")), thing=name)


ENTRIES = [
    None, 3, "x", [], {}, {"hub": 3}, {"hub": "x/y", "revision": 3}, {"path": 3}, {"path": "nowhere"},
    {"path": "model"}, {"hub": "x/y", "meta": "z"}, {"archives": 3}, {"archives": [3]},
    {"archives": [{"package": "x"}]}, {"unknown": 1}, {"hub": "x/y", "title": 3},
    {"hub": "x/y", "title": "t", "shape": 3}, {"hub": "x/y", "title": "t", "prepend_bos": "no"},
    {"archive": 3, "title": "t"}, {"archive": {}, "title": "t"},
    {"module": "no.such", "mapping": "x", "title": "t"}, {"module": 3, "mapping": "x", "title": "t"},
    {"hub": "x/y", "title": "t", "rows": "x"}, {"path": [], "title": "t"},
    {"module": "os", "mapping": "no_such", "title": "t"},
    {"path": "texts.jsonl", "title": "t", "texts_sha256": 3}, {"path": "texts.jsonl", "title": 3},
    {"path": "texts.jsonl", "title": "t", "column": 3},
]  # fmt: skip


def test_an_entry_of_an_alias(own_project, judge):
    def act(name, entry):
        (own_project / "data" / name).write_text(yaml.safe_dump({"mine": entry}))
        if name == "models.yml":
            loading.load_config(sources.resolve("mine"))
        else:
            assert len(corpora.load_corpus("mine").texts) == 4

    for name, entry in itertools.product(("models.yml", "corpora.yml"), ENTRIES):
        judge(f"{name}: {entry}", lambda name=name, entry=entry: act(name, entry), thing="mine")


# Files of texts and of statements

CONTENTS = [
    b"", b" ", b"\n\n\n", b"\x00", b"a\x00b", b"\xff", b"\xfe\xff\x00a", b"\xef\xbb\xbf", b"\xed\xb2\x80",
    b"PK\x03\x04", b"PAR1", b"PAR1PAR1", b"\x1f\x8b", b"(\xb5/\xfd", b"{", b"{}", b"[]", b"3", b"null",
    b'"x"', b'{"text": 3}', b'{"text": null}', b'{"text": ""}', b'{"text": " "}', b'{"text": "\\ud800"}',
    b'{"text": "\\u0000"}', b'{"id": "\\ud800", "text": "a"}', b'{"id": "a\\u0000b", "text": "a"}',
    b'{"id": {}, "text": "a"}', b'{"id": [1], "text": "a"}', b'{"id": NaN, "text": "a"}',
    b'{"text": "a"}\n{"text": "b"', b'{"text": "a"}{"text": "b"}', b'{"text": "a", "text": "b"',
    b'{"text": ["a"]}', b'{"id": 1, "text": "a"}\n{"id": "1", "text": "b"}',
    b'{"id": 1, "text": "a"}\n{"id": 1, "text": "a"}', b'{"Text": "a"}', b"[" * 100_000,
    b'{"text": "' + b"\\u00" * 5 + b'"}', b'{"id": ' + b"9" * 5000 + b', "text": "a"}', b'{"text": "a"} x',
    b"id\ntext", b"text", b"text\n", b"text,text\na,b", b"id,id,text\n1,2,a", b"text\na,b", b'text\n"a',
    b'text\na"b"c', b"text\n\x00", b"id,text\n1,a\n1,b", b"id,text\n1", b"Text\na", b'text\n"a\\"b" c"',
    "text\né".encode("latin-1"), "text\né".encode("utf-16"),
]  # fmt: skip
FORMATS = (".txt", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".csv")


@pytest.mark.parametrize("ending", FORMATS)
def test_a_file_of_texts(ending, judge, tmp_path):
    for number, content in enumerate(CONTENTS):
        path = tmp_path / f"{number}{ending}"
        contents = {path: content}
        if ending == ".jsonl.gz":
            contents[tmp_path / f"packed-{number}{ending}"] = gzip.compress(content)
        for place, written in contents.items():
            place.write_bytes(written)
            judge(f"{place.name}: {content[:40]!r}", lambda place=place: _texts(place), thing=number, hint=False)


def _texts(path):
    found = corpora.load_corpus(str(path)).texts
    assert all(isinstance(key, str) and isinstance(text, str) for key, text in found.items())
    assert any(found.values())


LABELS = [
    "", " ", "x", "0", "1", "2", "-1", "1.0", "0.5", "1e20", "inf", "-inf", "nan", "NaN", "None", "null",
    "true", "false", "True", "t", "f", "yes", "1e400", "0x1", "1_000", "١", "½", "²", "0" * 5000, "\u200b",
    "=1+1", "9" * 400, "-0", "+1", "1.",
]  # fmt: skip


def test_labels_of_statements(judge, tmp_path):
    for number, (one, other) in enumerate(itertools.combinations(LABELS, 2)):
        path = tmp_path / f"own{number}.csv"
        path.write_text("statement,label\n" + "".join(f"s{n},{(one, other)[n % 2]}\n" for n in range(8)))

        def act(path=path, one=one, other=other):
            found = statements.load(str(path))
            values = dict(zip(found.texts, found.labels.tolist(), strict=True))
            assert len(set(values.values())) == 2  # of two spellings two classes
            numbers = [float(label) for label in (one, other) if re.fullmatch(r"[+-]?[01](\.0*)?", label)]
            if sorted(numbers) == [0, 1]:
                truth = {0.0: 0, 1.0: 1}
                assert values["s0"] == truth[float(one)] and values["s1"] == truth[float(other)]

        same = one.strip().lower() == other.strip().lower()
        with contextlib.suppress(ValueError):
            same |= float(one) == float(other)
        judge(f"{one!r}, {other!r}", act, thing=path.name, right=False if same else None, hint=False)


def test_files_of_statements(judge, tmp_path):
    for number, content in enumerate(CONTENTS):
        for head in (b"", b"statement,label\n", b"statement,label,label\n", b"label,statement\n"):
            path = tmp_path / f"own{number}.csv"
            path.write_bytes(head + content)
            what = f"{head + content[:40]!r}"
            judge(what, lambda path=path: statements.load(str(path)), thing=path.name, right=False, hint=False)


NAMES_OF_FILES = [
    "", ".", "..", "/", "~", "~x", "\0", "a\0", "\udc80", "*", "**", "[", "[]", "?", "//", "a//b", "a b",
    "a" * 5000, "x/" * 3000, "http://x", "hub:x", "x@y", "@", "@random", "x@random", "x@permuted-",
    "x@random--1", "x@random-" + "9" * 400, "-", "--help", "\n", "a\nb", "<b>", "x.gguf", "folder.gguf",
    "pipe.gguf", "pipe", "pipe.csv", "pipe.txt", "pipe.jsonl", "pipe.parquet", "loop", "loop.txt", "zero.txt",
    "zero.csv", "zero.gguf", "zero.jsonl", "folder", "folder.csv", "con", "nul", "owner/", "/owner",
    "owner/name/more",
]  # fmt: skip


def test_names_of_models_corpora_and_statements(judge, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("folder", "folder.gguf", "folder.csv"):
        (tmp_path / name).mkdir()
    for name in ("pipe", "pipe.gguf", "pipe.csv", "pipe.txt", "pipe.jsonl", "pipe.parquet"):
        os.mkfifo(tmp_path / name)
    for name in ("loop", "loop.txt"):
        (tmp_path / name).symlink_to(name)
    for name in ("zero.txt", "zero.csv", "zero.gguf", "zero.jsonl"):
        (tmp_path / name).symlink_to("/dev/zero")
    for name in NAMES_OF_FILES:
        judge(f"model {name[:40]!r}", lambda name=name: loading.load_config(sources.resolve(name)), right=False)
        judge(f"corpus {name[:40]!r}", lambda name=name: corpora.load_corpus(name), right=False)
        judge(f"data set {name[:40]!r}", lambda name=name: statements.load(name), right=False)


# Directories of models

VALUES = [None, True, 0, -1, 7, 10**6, 2**63, math.nan, "x", [0], {"x": 1}]
KEYS = [
    "model_type", "architectures", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "head_dim", "intermediate_size", "rms_norm_eps", "hidden_act",
    "max_position_embeddings", "rope_parameters", "tie_word_embeddings", "dtype", "quantization_config",
    "auto_map", "bos_token_id",
]  # fmt: skip


def _load_whole(folder):
    source = sources.resolve(str(folder))
    request = Extraction(model=str(folder), corpus="x", output="x", n_tokens=4, device="cpu")
    request.resolve()
    loading.load_tokenizer(source)
    model = loading.load_model(source, dtype="float32", device="cpu")
    with torch.inference_mode():
        hidden = model(torch.arange(2, 8)[None], output_hidden_states=True).hidden_states
    assert len(hidden) == 1 + loading.load_config(source).num_hidden_layers
    if not all(torch.isfinite(part).all() for part in hidden):  # as measuring it finds
        raise InputError(f"{folder}: a hidden state is not finite; try dtype float32")


@pytest.fixture(scope="module")
def expected(tiny):
    config = json.loads((tiny / "model" / "config.json").read_text())
    return config


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_configuration(key, tiny, expected, judge, tmp_path):
    shutil.copytree(tiny / "model", tmp_path / "model")
    for value in VALUES:
        (tmp_path / "model" / "config.json").write_text(json.dumps(expected | {key: value}))
        for control in ("", "@random"):
            if control and key.endswith("size") and value in (10**6, 2**63):
                continue  # weights of that size would be drawn
            folder = f"{tmp_path / 'model'}{control}"
            judge(f"{key} = {value!r} {control}", lambda folder=folder: _load_whole(folder), thing=tmp_path)


def test_files_of_a_model(tiny, judge, tmp_path):
    whole = {path.name: path.read_bytes() for path in (tiny / "model").iterdir()}
    contents = [
        None,
        b"",
        b"x",
        b"\xff",
        b"{}",
        b"[]",
        b"null",
        b"3",
        b"{",
        b"[" * 5000,
        b"\x00" * 100,
        b"\xff" * 100,
    ]
    for number, (name, content) in enumerate(
        itertools.product(whole, [*contents, "directory", "pipe", "loop", "half"])
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        for other, written in whole.items():
            (folder / other).write_bytes(written)
        (folder / name).unlink()
        if content == "directory":
            (folder / name).mkdir()
        elif content == "pipe":
            os.mkfifo(folder / name)
        elif content == "loop":
            (folder / name).symlink_to(name)
        elif content is not None:
            (folder / name).write_bytes(whole[name][: len(whole[name]) // 2] if content == "half" else content)
        needless = name == "generation_config.json" or name == "tokenizer_config.json"
        what = f"{name} = {content[:20] if content else content!r}"
        judge(what, lambda folder=folder: _load_whole(folder), thing=folder, right=None if needless else False)


def _spoil(tensors, how):
    name = "model.embed_tokens.weight" if how == "zero" else "model.layers.1.mlp.up_proj.weight"
    made = dict(tensors)
    part = made[name]
    if how == "gone":
        del made[name]
    elif how == "all gone":
        made = {}
    elif how == "more":
        made["model.layers.1.mlp.up_proj.weight_scale"] = torch.ones(1)
    elif how == "fourth block":
        made |= {
            key.replace("layers.2", "layers.3"): value.clone()
            for key, value in tensors.items()
            if "layers.2" in key
        }
    else:
        made[name] = {
            "zero": torch.zeros_like(part),
            "nan": part * math.nan,
            "infinite": part / 0,
            "int8": (part * 100).to(torch.int8),
            "int64": (part * 100).to(torch.int64),
            "bool": part > 0,
            "transposed": part.T.contiguous(),
            "flat": part.flatten(),
            "complex": part.to(torch.complex64),
            "float8": part.to(torch.float8_e4m3fn),
            "scalar": torch.tensor(1.0),
            "empty": part[:0].clone(),
        }[how]
    return made


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_weights_of_a_model(form, tiny, judge, tmp_path):
    tensors = load_file(tiny / "model" / "model.safetensors")
    hows = [
        "gone", "all gone", "more", "fourth block", "zero", "nan", "infinite", "int8", "int64", "bool",
        "transposed", "flat", "complex", "float8", "scalar", "empty",
    ]  # fmt: skip
    for how in hows:
        folder = tmp_path / how
        shutil.copytree(tiny / "model", folder)
        (folder / "model.safetensors").unlink()
        if form == "bin":
            torch.save(_spoil(tensors, how), folder / "pytorch_model.bin")
        else:
            save_file(_spoil(tensors, how), folder / "model.safetensors")
        right = True if how == "float8" else False
        judge(f"{form}, {how}", lambda folder=folder: _load_whole(folder), thing=folder, right=right)


# GGUF files


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    config = transformers.LlamaConfig(**{**gguf_files.SMALL, **gguf_files.SIZES, "num_hidden_layers": 2})
    model = gguf_files.random_model(transformers.LlamaForCausalLM, config)
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    gguf_files.write(
        path, "llama", model=model, keys=gguf_files.keys_of(config) | {"attention.layer_norm_rms_epsilon": 1e-6}
    )
    return path.read_bytes()


def _resolve_gguf(path):
    source = sources.resolve(str(path))
    source.check_files()
    loading.load_config(source)


def test_headers_of_gguf_files(gguf_file, judge, tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN_GEOMETRY_CACHE", str(tmp_path / "cache"))
    draw = random.Random(0)
    place = gguf_file.index(b"tokenizer.ggml.tokens")
    spoiled = []
    for value in (0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1):
        for offset in (8, 16, 24):  # tensors, keys, length of the first key
            spoiled.append(gguf_file[:offset] + struct.pack("<Q", value) + gguf_file[offset + 8 :])
        spoiled.append(gguf_file[:4] + struct.pack("<I", value % 2**32) + gguf_file[8:])
        array = place + len(b"tokenizer.ggml.tokens")
        for offset, form, size in ((0, "<I", 2**32), (4, "<I", 2**32), (8, "<Q", 2**64)):
            start = array + offset
            packed = struct.pack(form, value % size)
            spoiled.append(gguf_file[:start] + packed + gguf_file[start + len(packed) :])
    for key in (
        b"llama.block_count",
        b"llama.embedding_length",
        b"llama.attention.head_count",
        b"llama.context_length",
    ):
        start = gguf_file.index(key) + len(key) + 4
        for value in (0, 1, 2**16, 2**31, 2**32 - 1):
            spoiled.append(gguf_file[:start] + struct.pack("<I", value) + gguf_file[start + 4 :])
    for _ in range(120):
        content = bytearray(gguf_file)
        for _ in range(draw.choice([1, 1, 2, 8])):
            content[draw.randrange(12_000)] = draw.randrange(256)
        spoiled.append(bytes(content))
    spoiled += [gguf_file[: draw.randrange(len(gguf_file))] for _ in range(20)]
    for number, content in enumerate(spoiled):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(content)
        judge(f"GGUF {number}", lambda path=path: _resolve_gguf(path), thing=path.name, own_words=False)
        path.unlink()


# Meta's files


PARAMS = {
    "dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "multiple_of": 16,
    "norm_eps": 1e-6,
    "vocab_size": -1,
}


def test_files_of_meta(judge, tmp_path):
    folder = tmp_path / "meta"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(b"x")
    tensors = {"tok_embeddings.weight": torch.ones(512, 64), "layers.0.attention.wq.weight": torch.ones(64, 64)}
    torch.save(tensors, folder / "consolidated.00.pth")

    def act():
        source = sources.resolve(str(folder))
        source.check_files()
        config = loading.load_config(source)
        source.weights(config)

    for key, value in itertools.product(
        [*PARAMS, "rope_theta", "ffn_dim_multiplier", "use_scaled_rope", "new"], VALUES
    ):
        (folder / "params.json").write_text(json.dumps(PARAMS | {key: value}))
        is_size = key in ("dim", "n_layers", "n_heads")
        right = False if is_size and (type(value) is not int or value < 1) else None
        judge(f"{key} = {value!r}", act, thing=folder, right=right)
    (folder / "params.json").write_text(json.dumps(PARAMS))
    for number in ("99999999999", "-1", "x", "²²", "9" * 200, "00.00"):
        name = f"consolidated.{number}.pth"
        (folder / name).write_bytes(b"x")
        judge(name, act, thing=folder, right=True if name == "consolidated.x.pth" or "-1" in name else None)
        (folder / name).unlink()
    for content in (
        b"",
        b"x",
        b"\x80\x02.",
        b"PK\x05\x06" + bytes(18),
        pickled({"x": 1}),
        pickled([torch.ones(1)]),
    ):
        (folder / "consolidated.00.pth").write_bytes(content)
        judge(repr(content[:20]), act, thing=folder, right=False)
    (folder / "consolidated.00.pth").unlink()
    os.mkfifo(folder / "consolidated.00.pth")
    judge("named pipe", act, thing=folder, right=False)


def pickled(value):
    import io

    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


# All together


@pytest.mark.skipif("PYTEST_XDIST_WORKER" in os.environ, reason="other tests have used this process: take -n 0")
def test_all_inputs_together_take_no_more_memory_than_is_said():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak < MEMORY + (1 << 30)
    if len(COUNTS) > 100:  # all of them ran in this process
        assert sum(COUNTS.values()) >= 5000, COUNTS
