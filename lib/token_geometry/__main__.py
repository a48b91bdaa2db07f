"""Command line: ``token-geometry``, or ``python -m token_geometry``."""

import argparse
import importlib
import json
import os
import re
import shutil
import string
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields

import psutil

from token_geometry import __version__
from token_geometry.base import InputError, one_of, parameters, processes, project, resources
from token_geometry.models import devices, sources
from token_geometry.requests.extraction import Extraction
from token_geometry.requests.protocol import Request
from token_geometry.requests.reduction import Reduction
from token_geometry.requests.sizes import spelled
from token_geometry.requests.truth import Truth
from token_geometry.requests.truth_controls import TruthControls
from token_geometry.runs import declaration, execution, forecast, results
from token_geometry.texts import corpora

STUDIES = {
    "extract": (Extraction, "extraction.extraction:extract", "prompts of a corpus through a model, to shards"),
    "observables": (Reduction, "studies.reduction:reduce", "shards to one data set of all observables"),
    "truth": (Truth, "studies.truth:measure", "true and false statements at a layer of a model"),
    "truth-controls": (TruthControls, "studies.truth_controls:measure", "what else than truth could be behind it"),
}
"""Commands that do what a notebook does: its request, the function that carries it out, what is said of it."""

OLDEST_QUARTO = (1, 6)  # what came before renders the book differently


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        if found := re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            raise one_of(found[1].lower().lstrip("-"), found[2], re.findall(r"[\w-]+", found[3]))
        raise InputError(f"{message}; {self.prog} --help says what is accepted")


def main(argv: list[str] | None = None) -> int:
    """Do what a command line asks for; what goes wrong is one line. Returns the exit status."""
    try:
        options, unknown = _parser().parse_known_args(argv)
        if unknown:
            raise one_of("option", unknown[0], options.known)
        return options.do(options)
    except InputError as error:
        said = str(error)
    except OSError as error:  # what is wrong with a value or a file is an InputError
        said = f"{error.filename or 'a file'}: {error.strerror or error}: check disk space and permissions"
    except ModuleNotFoundError as error:
        said = f"what you ask for needs {error.name}: pip install './lib[report]', in the project's folder"
    except KeyboardInterrupt:
        print("\ninterrupted: what is finished is kept; the same command goes on from there", file=sys.stderr)
        return 130
    print(f"error: {said}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="token-geometry", description="Measure the geometry of hidden states.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, do: Callable, text: str, *arguments: tuple[str, dict]) -> None:
        one = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        for argument, takes in arguments:
            one.add_argument(argument, **{"default": argparse.SUPPRESS} | takes)
        known = [argument for argument, _ in arguments if argument.startswith("--")]
        one.set_defaults(do=do, known=known, command=name)

    text = "check everything and say what it takes; make and download nothing"
    dry = ("--dry-run", {"action": "store_true", "default": False, "help": text})
    declared = ("name", {"nargs": "?", "default": "", "help": "name of a file of data/runs (default: demo)"})
    renderer = ("--renderer", {"choices": ("auto", "quarto", "pandoc"), "default": "auto"})
    text = "compute on this machine what came with the project"
    anew = ("--recompute", {"action": "store_true", "default": False, "help": text})
    new = ("name", {"help": "its name: letters, digits, hyphens"})
    chosen = {"--model": "smollm2-135m", "--corpus": "sotu"}
    of_new = [(name, {"default": value, "help": f"(default: {value})"}) for name, value in chosen.items()]
    for name, (kind, _, text) in STUDIES.items():
        command(name, _study, text, *parameters.options(kind), dry)
    command("run", _declared, "make what is missing or stale of a declared run", declared, dry, anew)
    command("book", _declared, "the same, and render its book to _book/NAME", declared, renderer, anew)
    command("publish", _publish, "copy the results of a run, compressed, to data/published/NAME", declared)
    command("new-run", _new_run, "write a commented data/runs/NAME.yml, to be changed by hand", new, *of_new)
    command("check", _check, "say what this machine has, and what of each run is made")
    return parser


def _study(options) -> int:
    kind, place, _ = STUDIES[options.command]
    words = {field.name: getattr(options, field.name) for field in fields(kind) if hasattr(options, field.name)}
    request: Request = parameters.build(kind, parameters.of_words(kind, words), noun="option")
    if options.dry_run:
        return _say(*forecast.describe_requests({options.command: request}))
    module, function = place.split(":")
    getattr(importlib.import_module(f"token_geometry.{module}"), function)(request)
    reduction = f"token-geometry observables --extraction {request.output} --output observables.nc"
    way_on = reduction if options.command == "extract" else f"token_geometry.open_results({request.output!r})"
    print(f"{request.output} is made: {way_on}")
    return 0


def _say(text: str, n_problems: int) -> int:
    print(text)
    return int(n_problems > 0)


def _declared(options) -> int:
    os.chdir(project.root())  # from which the paths of a run are
    run = declaration.load(options.name)
    if not options.name and "QUARTO_PROFILE" not in os.environ:
        print(f"no run is named: this is {run.name}; there are {', '.join(declaration.names())}")
    print(*run.notes, sep="\n", end="\n" if run.notes else "")
    if options.recompute or options.command == "run" and not options.dry_run:
        is_new = execution.execute(run, recompute=options.recompute)
    if options.command == "book":
        return render(run, renderer=options.renderer)
    if options.dry_run:
        return _say(*forecast.describe(run))
    if not is_new:
        print(f"run {run.name}: all results are there and fresh, nothing to compute")
    return 0


def _publish(options) -> int:
    written = results.publish(declaration.load(options.name))
    print(*written, f"{len(written)} results, {spelled(sum(path.stat().st_size for path in written))}", sep="\n")
    return 0


def _new_run(options) -> int:
    path = project.root() / "data" / "runs" / f"{options.name}.yml"
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", options.name):
        raise InputError(f"the name of a run is {options.name!r}; accepted: letters, digits, hyphens")
    if path.exists():
        raise InputError(f"{path} exists: change it, or take another name than {options.name!r}")
    text = (project.root() / "data" / "new-run.yml").read_text(encoding="utf-8")
    known, given = {*project.entries("models.yml"), *project.entries("corpora.yml")}, {"name": options.name}
    sources.resolve(options.model)  # refused if there is no such thing
    corpora.find_corpus(options.corpus)
    for key, value in (("model", options.model), ("corpus", options.corpus)):
        # a path, which would be another one elsewhere, becomes that from the root
        whole = os.path.abspath(value) if value not in known and os.path.exists(value) else value
        given[key] = json.dumps(whole, ensure_ascii=False)[1:-1]
    path.write_text(string.Template(text).substitute(given), encoding="utf-8")
    print(f"{path} is written: change it, then token-geometry run {options.name} --dry-run")
    return 0


def _check(options) -> int:
    device, free = devices.choose_device("auto"), shutil.disk_usage(project.cache()).free
    print(f"token_geometry {__version__}, Python {sys.version.split()[0]}, {sys.executable}")
    print(f"device: {resources.device_name(device)} ({device}), {processes.cores()} cores")
    print(f"memory: {spelled(psutil.virtual_memory().available)} free")
    print(f"cache: {project.cache()}, {spelled(free)} free on its disk")
    print(f"books are rendered by {'Quarto' if find_quarto()[0] else 'pandoc'}")
    for name in declaration.names() if project.find() else ():
        steps = results.results(declaration.load(name)).values()
        made = [step.path.is_file() or step.shipped.is_file() for step in steps]
        print(f"run {name}: {sum(made)} of {len(made)} results are there")
    return 0


def render(run: declaration.Run, *, renderer: str) -> int:
    """Render the book of a run, its results brought up to date by the project's pre-render step.

    `renderer` is `quarto`, refused if there is none, `pandoc`, or `auto`: Quarto if there. Returns the status."""
    quarto, version = find_quarto() if renderer != "pandoc" else ("", "")
    if renderer == "quarto" and not quarto:
        wanted = ".".join(map(str, OLDEST_QUARTO))
        problem = f"renderer is 'quarto', but no Quarto of version {wanted} or later is on the PATH"
        raise InputError(f"{problem}: install it from quarto.org or conda-forge, or use renderer pandoc")
    if quarto:
        # chapters must run in this environment, whatever else is on the PATH
        environment = os.environ | {"QUARTO_PYTHON": sys.executable}
        command = [quarto, "render", "--profile", run.name]
        status = subprocess.run(command, cwd=project.root(), env=environment).returncode
        name = f"Quarto {version}"
    else:
        book = importlib.import_module("token_geometry.renderer.book")  # what it needs comes with the report alone
        status = book.main(["--profile", run.name, "--output-dir", f"_book/{run.name}"])
        name = "pandoc (no Quarto found)" if renderer == "auto" else "pandoc"
    if status == 0:
        print(f"Rendered by {name}: {project.root() / '_book' / run.name / 'index.html'}")
    return status


def find_quarto() -> tuple[str, str]:
    """Path and version of a Quarto that is recent enough, else two empty strings."""
    path = shutil.which("quarto") or ""
    printed = subprocess.run([path, "--version"], capture_output=True, text=True).stdout if path else ""
    numbers = re.match(r"\d+(\.\d+)*", printed.strip())
    is_recent = numbers and tuple(map(int, numbers[0].split("."))) >= OLDEST_QUARTO
    return (path, numbers[0]) if numbers and is_recent else ("", "")


if __name__ == "__main__":
    sys.exit(main())
