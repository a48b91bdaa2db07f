"""Faults: kill, starve and disturb a run of tiny random models, and count what is lost, wrong and left over.

    python lib/faults.py                          # everything; most of an hour on one core
    python lib/faults.py --only kills --kills 20

A project of its own in a temporary folder, with a run of every notebook that computes, is disturbed again and
again, and then left in peace once: `lost` is what was whole before and is no more, `wrong` what differs from the
results of a run that nobody disturbed, is half a file, or ends in more than one line, and `left over` are files or
processes that nobody needs. Each is listed with its place. The exit status is their number, up to 100.
"""

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import yaml

LIB = Path(__file__).resolve().parent
ROOT = LIB.parent
KINDS = ("lost", "wrong", "left over")

RUN = {
    "title": "tiny", "models": ["tiny"], "corpus": "texts.jsonl", "n_tokens": 64, "device": "cpu",
    "extractions": {"all": {"n_prompts": 8, "shuffle_levels": [0, 1, 2]}},
    "controls": {"models": ["tiny@random"], "n_prompts": 1, "shuffle_levels": [0, 2]},
    "calibration": {"n_prompts": 1, "n_points": 64, "n_replicates": 2, "dimensions": [1, 3]},
    "truth": {"datasets": ["own.csv", "neg_own.csv"], "n_statements": 40, "models": {"tiny": {"layer": 2}}},
}  # fmt: skip
CHAPTERS = ("index.qmd", "notebooks/truth-pca.ipynb", "notebooks/validation.ipynb", "book/references.qmd")
MADE = {
    "extraction": ("shards/*/*.nc", "observables.nc", "control.nc"),
    "observables": ("observables.nc", "control.nc"),
    "calibration": ("validation.nc",),
    "truth-pca": ("truth-tiny.nc",),
}
"""What the notebooks make that compute, and what is made of it, in the folder of results."""

WORK = {"extraction": 8.0, "observables": 4.0, "calibration": 8.0, "truth-pca": 3.0, "book": 15.0}
"""About as many seconds of the processor it takes to make them."""

SECONDS = 20  # after which whatever a killed process has started is to have ended

# one line per process: what a kernel prints of a cell that fails is its own
PROGRAM = "import sys; from token_geometry.__main__ import main; sys.exit(main(sys.argv[1:]))"

SLOWED_CLOCK = """
import time
_now, _start = time.time, time.time()
time.time = lambda: _now() - 86400 * (_now() > _start + 2)
"""


class Project:
    """A project in a folder, what it holds when nobody disturbs it, and the faults that were found."""

    def __init__(self, folder: Path):
        self.home, self.root, self.faults = folder, folder / "project", []
        self.root.mkdir()
        self._copy()
        for name in ("cache", "tmp", "jupyter"):
            (folder / name).mkdir()
        here = {
            "TOKEN_GEOMETRY_CACHE": "cache",
            "TMPDIR": "tmp",
            "JUPYTER_RUNTIME_DIR": "jupyter",
            "IPYTHONDIR": "jupyter",
        }
        self.environment = os.environ | {name: str(folder / part) for name, part in here.items()}
        self.environment |= {
            "PYTHONPATH": str(LIB),
            "QUARTO_PROFILE": "tiny",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "LOKY_MAX_CPU_COUNT": "1",
        }
        os.chdir(self.root)
        self.seconds = {}
        for command in ("run", "book"):
            begin = time.monotonic()
            done = self.do(command)
            if done.returncode:
                sys.exit(f"error: {command} fails undisturbed: {done.stdout[-2000:]}")
            self.seconds[command] = time.monotonic() - begin
        shutil.copytree(self.results, folder / "reference")
        written = ("data/results", "_book", "book/_", "..")
        self.sources = {path: digest(self.root / path) for path in self.files() if not path.startswith(written)}
        (self.results / "notes.txt").write_text("of the user")
        self.whole = self.files()

    def _copy(self) -> None:
        import torch
        import transformers
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import Whitespace

        root = self.root
        for name in ("book", "notebooks"):
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("_*.md"))
        shutil.copytree(
            ROOT / "data", root / "data", ignore=shutil.ignore_patterns("results", "cache", "families", "runs")
        )
        (root / "data" / "runs").mkdir()
        (root / "data" / "runs" / "tiny.yml").write_text(yaml.safe_dump(RUN))
        (root / "data" / "runs" / "two.yml").write_text(yaml.safe_dump(RUN | {"num_processes": 2}))
        (root / "lib").mkdir()
        for name in (
            "prerender.py",
            "postrender.py",
            "appendices.py",
            "dadapy_gride.py",
            "constraints.txt",
            "pyproject.toml",
        ):
            shutil.copy(LIB / name, root / "lib" / name)
        for name in ("index.qmd", "CITATION.cff", "LICENSE"):
            shutil.copy(ROOT / name, root)
        config = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
        config["pages"] = list(CHAPTERS)
        config["book"].pop("appendices", None)
        (root / "_quarto.yml").write_text(yaml.safe_dump(config))
        for path in (root / name for name in CHAPTERS):  # which leads to chapters that are left out
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r"@(sec|fig|tbl|eq)-[\w-]+", "another chapter", text), encoding="utf-8")
        torch.manual_seed(0)
        sizes = {
            "vocab_size": 400,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 6,
            "num_attention_heads": 2,
        }
        transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**sizes)).save_pretrained(
            root / "tiny"
        )
        tokenizer = Tokenizer(WordLevel({f"w{number}": number for number in range(400)}, unk_token="w0"))
        tokenizer.pre_tokenizer = Whitespace()
        transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(
            root / "tiny"
        )
        draw = np.random.default_rng(0)
        texts = [" ".join(f"w{n}" for n in draw.permutation(np.arange(2, 400))[:100]) for _ in range(10)]
        (root / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
        for name, sign in (("own", 0), ("neg_own", 1)):
            rows = [f"w{n} w{n + 3} w{sign + 2},{(n + sign) % 2}" for n in range(4, 60)]
            (root / f"{name}.csv").write_text("\n".join(["statement,label", *rows]))

    @property
    def results(self) -> Path:
        return self.root / "data" / "results" / "tiny"

    def start(self, command: str, run: str = "tiny", *, before: tuple = (), **more) -> subprocess.Popen:
        words = [sys.executable, "-c", PROGRAM, command, run, *["--renderer", "pandoc"] * (command == "book")]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([*before, *words], cwd=self.root, **{"env": self.environment} | pipes | more)

    def do(self, command: str, run: str = "tiny", **more) -> subprocess.CompletedProcess:
        process = self.start(command, run, **more)
        printed, _ = process.communicate()
        return subprocess.CompletedProcess([], process.returncode, printed)

    def files(self) -> set[str]:
        """Files of the project, the cache and the folder of temporary files, named from the project's root."""
        found = set()
        for name in ("project", "cache", "tmp"):
            paths = [
                path
                for path in (self.home / name).rglob("*")
                if not path.is_dir() and "__pycache__" not in path.parts
            ]
            found |= {os.path.relpath(path, self.root) for path in paths}
        # of each name that a checksum in the cache has, one is as good as another; how to reach a kernel that has
        # ended, Jupyter leaves in the folder of temporary files
        passed = r"checksums/[0-9a-f]{64}$|/locks/|/tmp/tmp\w{8}\.json$"
        return {path for path in found if not re.search(passed, path)}

    def processes(self) -> list[psutil.Process]:
        """Those that were started in this project and run."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.pid != os.getpid() and process.environ().get("TMPDIR") == self.environment["TMPDIR"]:
                    found.append(process)
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]

    def fault(self, kind: str, what: str) -> None:
        self.faults.append(kind)
        print(f"    {kind}: {what}", flush=True)

    def wait_for_processes(self, what: str) -> None:
        end = time.monotonic() + SECONDS
        while (running := self.processes()) and time.monotonic() < end:
            time.sleep(0.1)
        for process in running:
            with contextlib.suppress(psutil.Error):
                self.fault("left over", f"{what}: a process: {' '.join(process.cmdline())[-160:]}")
                process.kill()

    def check(self, what: str, *, before: set[str] = frozenset()) -> None:
        """Whether results are whole and right where they are, and what was there `before` still is."""
        from token_geometry.base import store
        from token_geometry.base.errors import InputError

        there = self.files()
        for path in sorted(before - there):
            self.fault("lost", f"{what}: {path}")
        for path, old in self.sources.items():
            if path in there and digest(self.root / path) != old:
                self.fault("lost", f"{what}: {path} has changed")
        for path in self.results.rglob("*.nc"):
            if path.name.startswith("."):
                continue
            try:
                found = comparable(store.read(path))
            except InputError as error:
                self.fault("wrong", f"{what}: {error}")
                continue
            expected = self.home / "reference" / path.relative_to(self.results)
            if not found.identical(comparable(store.read(expected))):
                self.fault("wrong", f"{what}: {path.name} differs")

    def check_line(self, what: str, done: subprocess.CompletedProcess, *, fails: bool) -> None:
        """Whether a command that fails says so in one line."""
        if "Traceback" in done.stdout or (done.returncode != 0) != fails and done.returncode not in (0, 1):
            self.fault("wrong", f"{what}: exit status {done.returncode}: {done.stdout[-600:]}")
        elif fails and not re.search(r"^error: .+$", done.stdout, re.MULTILINE):
            self.fault("wrong", f"{what}: no line: {done.stdout[-600:]}")

    def in_peace(self, what: str, *, logged: bool = True) -> None:
        """Let everything be made that is missing: then all is there, right, and nothing else.

        The executed notebooks are asked for where all was `logged`."""
        self.wait_for_processes(what)
        done = self.do("book")
        if done.returncode or "Traceback" in done.stdout:
            self.fault("wrong", f"{what}: fails in peace: {done.stdout[-600:]}")
        self.wait_for_processes(what)
        self.check(what, before={path for path in self.whole if logged or "/records/" not in path})
        for path in sorted(self.files() - self.whole):
            self.fault("left over", f"{what}: {path}")
            (self.root / path).unlink()
        for path in (self.results / "records").glob("*"):
            try:
                json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                self.fault("wrong", f"{what}: {path.name} is half a record")
        for page in (self.root / "_book" / "tiny").rglob("*.html"):
            if not page.read_text(encoding="utf-8").rstrip().endswith("</html>"):
                self.fault("wrong", f"{what}: {page.name} is half a page")

    def make_stale(self, notebook: str) -> None:
        """Take away what a notebook makes, and what is made of it."""
        for pattern in MADE.get(notebook, ()):
            for path in self.results.glob(pattern):
                path.unlink()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def comparable(dataset):
    """A result without what no two runs share: times, versions, peaks of memory."""
    kept = [name for name in dataset.data_vars if "seconds" not in name]
    recipe = dataset.attrs["recipe_digest"]
    return dataset[kept].drop_attrs().assign_attrs(recipe=recipe)


def engine():
    """An engine of papermill that runs cells in this process, which has imported everything."""
    from papermill.engines import Engine

    class Here(Engine):
        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **_):
            names: dict = {}
            for number, cell in enumerate(nb_man.nb.cells):
                nb_man.cell_start(cell, number)
                if cell.cell_type == "code":
                    exec(cell.source, names)
                nb_man.cell_complete(cell, number)

    return Here


def here(command: str) -> None:
    """A command in a process that was forked: so that a kill costs no start of Python and torch."""
    import papermill

    from token_geometry.__main__ import main

    null = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(null, stream)
    os.setsid()
    papermill.execute_notebook = partial(papermill.execute_notebook, engine_name="here")
    os._exit(main([command, "tiny", *["--renderer", "pandoc"] * (command == "book")]))


def _worked(pid: int) -> float:
    """Seconds of the processor that a process and those that it has started have taken."""
    with contextlib.suppress(psutil.Error):
        first = psutil.Process(pid)
        return sum(sum(one.cpu_times()[:4]) for one in [first, *first.children(recursive=True)])
    return 0.0


def kills(project: Project, options) -> None:
    """SIGKILL and SIGTERM in turn, at random moments, of every notebook that computes and of a rendering."""
    import accelerate.utils.memory  # noqa: F401
    import torch
    from papermill.engines import papermill_engines

    from token_geometry.extraction import extraction  # noqa: F401
    from token_geometry.studies import calibration, reduction, truth  # noqa: F401

    torch.set_num_threads(1)
    papermill_engines.register("here", engine())
    os.environ |= project.environment
    moments, counts = random.Random(options.seed), Counter()
    targets = (*MADE, "extraction", "calibration", "book")
    end = time.monotonic() + 60 * options.minutes
    while counts.total() < options.kills and time.monotonic() < end:
        target = targets[counts.total() % len(targets)]
        how = (signal.SIGKILL, signal.SIGTERM)[counts.total() // len(targets) % 2]
        what = f"{how.name} of {target}, number {counts.total() + 1}"
        project.make_stale(target)
        before = project.files() & project.whole
        process = multiprocessing.get_context("fork").Process(
            target=here, args=["book" if target == "book" else "run"]
        )
        process.start()
        # of the processor's time, so that it is no matter what else the machine does
        worked = moments.uniform(0, WORK[target])
        while process.is_alive() and _worked(process.pid) < worked:
            process.join(0.02)
        if process.is_alive():
            os.kill(process.pid, how)
            counts[f"{how.name} of {target}"] += 1
        elif process.exitcode:
            project.fault("wrong", f"{what}: it ends with exit status {process.exitcode}")
            return
        process.join()
        project.wait_for_processes(what)
        project.check(what, before=before)
        if counts.total() % 10 == 0:
            print(f"    {counts.total()} of {options.kills}", file=sys.stderr, flush=True)
    project.in_peace("after the kills")
    said = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
    print(f"{counts.total()} kills before the end: {said}")


def workers(project: Project, options) -> None:
    """The kernel of a notebook, and one of several processes of an extraction, are killed."""
    for number in range(options.workers):
        run, mark = (("tiny", "ipykernel_launcher"), ("two", "loky"))[number % 2]
        what = f"{mark} killed, number {number + 1}"
        project.make_stale("extraction")
        shutil.rmtree(project.results.with_name("two"), ignore_errors=True)
        process = project.start("run", run)
        time.sleep(random.Random(number).uniform(0, 3))
        end, victims = time.monotonic() + 60, []
        while not victims and process.poll() is None and time.monotonic() < end:
            victims = [
                one
                for one in project.processes()
                if mark in " ".join(one.cmdline()) and "tracker" not in " ".join(one.cmdline())
            ]
            time.sleep(0.05)
        for victim in victims[:1]:
            victim.kill()
        printed, _ = process.communicate()
        project.check_line(what, subprocess.CompletedProcess([], process.returncode, printed), fails=bool(victims))
        project.check(what)
    shutil.rmtree(project.results.with_name("two"), ignore_errors=True)
    project.in_peace("after killed workers")


def _mounted(project: Project, place: Path, mount: str, after: str = "") -> tuple[str, ...]:
    """Beginning of a command line that runs with a mount of its own at a place."""
    # the folder of this process is still what is under the mount
    script = f'{mount} && cd "$PWD" && {{ "$@"; code=$?; {after} exit $code; }}'
    return ("unshare", "--map-root-user", "--mount", "sh", "-c", script.replace("PLACE", f"'{place}'"), "sh")


def full_disk(project: Project, options) -> None:
    """The results, then the book, on a disk that fills up after a part of what is written."""
    results, kept = project.root / "data" / "results", project.home / "kept"
    size = sum(path.stat().st_size for path in (project.home / "reference").rglob("*") if path.is_file())
    for share in (0.1, 0.4, 0.7, 0.95):
        what = f"disk full at {share:.0%}"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        mount = f"mount -t tmpfs -o size={int(share * size) // 4096 * 4096} none PLACE"
        done = project.do("run", before=_mounted(project, results, mount, f"cp -a '{results}/.' '{kept}';"))
        project.check_line(what, done, fails=True)
        shutil.rmtree(project.results)
        if (kept / "tiny").is_dir():
            shutil.copytree(kept / "tiny", project.results)
        (project.results).mkdir(exist_ok=True)
        project.check(what)
        (project.results / "notes.txt").write_text("of the user")
        shutil.rmtree(kept, ignore_errors=True)
        # a result that still found place, though its executed notebook did not, is not computed again for that
        project.in_peace(what, logged=False)
    for path in (path for path in project.results.rglob("*") if path.is_file() and path.name != "notes.txt"):
        path.unlink()
    project.in_peace("all made anew")
    for size in (0, 1 << 20):
        what = f"disk of books full at {size} bytes"
        mount = f"mount -t tmpfs -o size={size or 4096} none PLACE"
        done = project.do("book", before=_mounted(project, project.root / "_book", mount))
        project.check_line(what, done, fails=True)
        project.in_peace(what)


def read_only(project: Project, options) -> None:
    """Folders that cannot be written."""
    for name, command in (
        ("data/results", "run"),
        ("../cache", "run"),
        ("_book", "book"),
        ("book", "book"),
        (".", "book"),
        ("../tmp", "run"),
    ):
        what = f"{name} read-only"
        project.make_stale("truth-pca")
        place = (project.root / name).resolve()
        mount = "mount --bind PLACE PLACE && mount -o remount,ro,bind PLACE"
        before = project.files()
        done = project.do(command, before=_mounted(project, place, mount))
        project.check_line(what, done, fails=name in ("data/results", "_book", "book", "."))
        project.check(what, before=before)
    project.in_peace("after read-only folders")


def together(project: Project, options) -> None:
    """Two commands at once: each ends well or in one line."""
    for number, commands in enumerate((("run", "run"), ("book", "book"), ("run", "book"))):
        what = f"{commands[0]} and {commands[1]} at once"
        if number != 1:
            for notebook in ("extraction", "truth-pca", "calibration"):
                project.make_stale(notebook)
        running = [project.start(command) for command in commands]
        for process in running:
            printed, _ = process.communicate()
            done = subprocess.CompletedProcess([], process.returncode, printed)
            project.check_line(what, done, fails=done.returncode != 0)
        project.check(what)
        project.in_peace(what)


def clock(project: Project, options) -> None:
    """Times of files from long ago and from the future, and a clock that goes back by a day."""
    for year in (1980, 2100):
        stamp = (year - 1970) * 31_556_952
        for path in project.files():
            os.utime(project.root / path, (stamp, stamp), follow_symlinks=False)
        before = {path: digest(path) for path in project.results.rglob("*.nc")}
        done = project.do("run")
        if done.returncode or "nothing to compute" not in done.stdout:
            project.fault("wrong", f"files of {year}: {done.stdout[-300:]}")
        if before != {path: digest(path) for path in project.results.rglob("*.nc")}:
            project.fault("wrong", f"files of {year}: results were written anew")
        project.in_peace(f"files of {year}")
    folder = project.home / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SLOWED_CLOCK)
    project.make_stale("extraction")
    project.make_stale("calibration")
    moved = project.environment | {"PYTHONPATH": f"{folder}:{LIB}"}
    project.check_line("the clock goes back", project.do("run", env=moved), fails=False)
    project.in_peace("the clock goes back")


FAULTS: dict[str, Callable] = {
    "kills": kills, "workers": workers, "full-disk": full_disk, "read-only": read_only, "together": together,
    "clock": clock,
}  # fmt: skip


def main() -> int:
    """Disturb; returns how many faults were found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", action="append", choices=FAULTS)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=600, help="after which no more kills begin")
    parser.add_argument("--workers", type=int, default=10, help="workers that are killed")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        project = Project(Path(temporary))
        total = Counter()
        for name in options.only or FAULTS:
            begin, project.faults = time.monotonic(), []
            print(f"{name}: {FAULTS[name].__doc__}", flush=True)
            FAULTS[name](project, options)
            found = Counter(project.faults)
            total += found
            said = ", ".join(f"{found[kind]} {kind}" for kind in KINDS)
            print(f"{name}: {said} ({time.monotonic() - begin:.0f} s)", flush=True)
    print("in all: " + ", ".join(f"{total[kind]} {kind}" for kind in KINDS))
    return min(total.total(), 100)


if __name__ == "__main__":
    sys.exit(main())
