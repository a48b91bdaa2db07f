"""What the repository promises about itself: versions, commands, layout."""

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib

import book_sources
import nbformat
import psutil
import pytest
import readme
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import parse_tag
from packaging.utils import canonicalize_name

import lock
import token_geometry
from token_geometry.__main__ import main
from token_geometry.base import project
from token_geometry.chapters.charts import BUNDLE
from token_geometry.runs import declaration

ROOT = project.root()


LOCK = (ROOT / "lib" / "constraints.txt").read_text()
README = (ROOT / "README.md").read_text(encoding="utf-8")


def locked() -> dict[str, tuple[str, Marker | None, list[str]]]:
    """Version, condition and wheels' tags of every package of the lock."""
    found, name = {}, ""
    for line in LOCK.splitlines():
        if line.startswith("    # "):
            found[name][2].append(line.removeprefix("    # "))
        elif not line.startswith("#"):
            pin, _, condition = line.partition(" ; ")
            name, version = pin.split("==")
            assert name not in found, f"{name} has two versions: the report's figures would depend on the Python"
            found[name] = version, Marker(condition) if condition else None, []
    return found


def declared(*groups: str) -> dict[str, Requirement]:
    """Requirements of the library, and of these extras."""
    project_table = tomllib.loads((ROOT / "lib" / "pyproject.toml").read_text())["project"]
    lines = project_table["dependencies"] + [
        line for group in groups for line in project_table["optional-dependencies"][group]
    ]
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def test_every_requirement_has_a_wheel_for_every_python_and_platform():
    lacking = []
    for name, (_, condition, wheels) in locked().items():
        offered = {tag for wheel in wheels for tag in parse_tag(wheel)}
        for target, (accepted, environment) in lock.targets().items():
            if (condition is None or condition.evaluate(environment)) and not offered & set(accepted):
                lacking.append((name, *target))
    assert lacking == []
    assert len(lock.targets()) == 12 and len(locked()) > 150


def test_a_wheel_of_another_python_or_platform_is_no_wheel():
    accepted, _ = lock.targets()["3.13", "darwin arm64"]
    assert lock.best_wheel(["a-1-cp313-cp313-macosx_11_0_arm64.whl"], accepted)
    for tags in (
        "cp312-cp312-macosx_11_0_arm64",
        "cp313-cp313-manylinux_2_28_aarch64",
        "cp313-cp313-macosx_99_0_arm64",
    ):
        assert lock.best_wheel([f"a-1-{tags}.whl"], accepted) is None


def test_the_lock_holds_every_requirement_in_its_range():
    requirements = declared("report", "test", "dev")
    assert requirements.keys() <= locked().keys()
    for name, requirement in requirements.items():
        assert requirement.specifier.contains(locked()[name][0]), name
    assert locked()["numpy"][0].startswith("2.") and locked()["torch"][0] == "2.13.0"
    assert not {"dadapy", "jax"} & locked().keys()


def test_the_conda_environment_has_the_versions_of_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    lines = environment["dependencies"][-1]["pip"]
    through_pip = {canonicalize_name(n): v for n, v in (line.split("==") for line in lines if "==" in line)}
    through_pip.pop("quarto-cli")
    # uv makes the environment of DADApy, with the compiler
    assert through_pip.keys() == declared("report", "test").keys() | {"uv"}
    assert through_pip == {name: locked()[name][0] for name in through_pip}
    assert "--constraint lib/constraints.txt" in lines and "c-compiler" in environment["dependencies"]


def test_every_pinned_package_installs_on_the_python_of_debian_12():
    refusing, installed = {}, {canonicalize_name(d.name): d for d in importlib.metadata.distributions()}
    for name, (version, _, _) in locked().items():
        if name in installed and installed[name].version.split("+")[0] == version:
            needed = installed[name].metadata.get("Requires-Python") or ""
            if not SpecifierSet(needed).contains("3.11.2"):
                refusing[name] = needed
    assert refusing == {}


def test_the_version_is_said_in_one_place_and_everywhere_the_same():
    assert "version" in tomllib.loads((ROOT / "lib" / "pyproject.toml").read_text())["project"]["dynamic"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == token_geometry.__version__
    newest, *_ = re.findall(r"^## (\S+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest == token_geometry.__version__


def test_pre_commit_checks_style_with_the_version_of_the_lock():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert hooks[0]["rev"] == f"v{locked()['ruff'][0]}"
    assert [hook["id"] for hook in hooks[0]["hooks"]] == ["ruff-check", "ruff-format"]


def test_workflows_call_targets_of_the_makefile_on_every_python_that_is_supported():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    jobs = workflow["jobs"].values()
    runs = [step["run"].split() for job in jobs for step in job["steps"] if "run" in step]
    called = {words[1] for words in runs if words[0] == "make"}
    assert called == {"check", "test", "book"} and called <= targets
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert pythons == list(dict.fromkeys(version for version, _ in lock.targets()))


@pytest.mark.slow
def test_importing_the_library_needs_nothing_of_the_report():
    report = declared("report").keys() - declared().keys() - {"joblib"}  # which scikit-learn brings
    blocked = sorted({name.replace("-", "_") for name in report} | {"IPython", "vl_convert", "pypandoc"})
    script = f"import sys\nsys.modules |= dict.fromkeys({blocked})\n"
    script += "import token_geometry, torch\n"
    script += "from token_geometry.extraction import extraction\n"
    script += "from token_geometry.observables import labelled\n"
    script += "from token_geometry.studies import calibration, reduction, truth\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_every_command_of_the_readme_is_run_as_it_stands():
    everything = readme.commands()
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "check.yml").read_text())["jobs"].values()
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    lines += [step["run"] for job in workflow for step in job["steps"] if "run" in step]
    ci = [shlex.split(line) for line in lines if line.startswith("make")]
    run = [words for words in everything if any(line[: len(words)] == words for line in ci)]
    # by test_notebooks and test_benchmarks
    run += readme.commands("papermill")
    run += readme.commands("torchrun")  # by test_processes
    run += readme.commands("lib/benchmarks/gpu.sh")  # by test_gpu_checks
    run += readme.commands("pip")  # by test_install
    run += [words for words in readme.commands("python") if words[1].startswith("lib/benchmarks/")]
    run += readme.commands("token-geometry")  # by test_own
    assert main(["run", "paper", "--dry-run"]) == 0
    # the two lines before make book
    run += readme.commands("git", "clone") + readme.commands("cd")
    # What takes a program that CI has not is at least about things that exist.
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["name"]
    run += [shlex.split("conda env create -f environment.yml"), ["conda", "activate", environment]]
    run += [["quarto", "render"], *(["quarto", "render", "--profile", name] for name in declaration.names())]
    assert [words for words in everything if words not in run] == []


def test_the_readme_counts_the_families_as_the_table_does():
    table = json.loads((ROOT / "data" / "families.json").read_text())
    equal = {row["class"] for row in table["families"] if row["outcome"] == "equal"}
    assert f"Of the {table['n_classes']} classes" in README and f"{len(equal)} are read exactly" in README
    assert f"transformers {table['transformers']} registers" in README


def test_chapters_of_the_book_exist_and_the_home_page_is_at_the_root():
    book = yaml.safe_load((ROOT / "_quarto.yml").read_text())["book"]
    assert book["chapters"] == ["index.qmd"] == book_sources.pages()[:1]
    assert all((ROOT / chapter).is_file() for chapter in book_sources.pages() + book["appendices"])


def test_the_library_that_draws_charts_is_made_once_for_each_version(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "lib")
    import prerender

    made = []
    monkeypatch.setattr("vl_convert.javascript_bundle", lambda: made.append(1) or "draw()")
    monkeypatch.setattr(project, "root", lambda: tmp_path)
    prerender.write_bundle()
    prerender.write_bundle()
    assert len(made) == 1
    monkeypatch.setattr("importlib.metadata.version", lambda name: "another")
    prerender.write_bundle()
    assert len(made) == 2 and (tmp_path / BUNDLE).read_text().endswith("draw()")


def test_a_book_that_quarto_made_takes_the_place_of_the_one_of_its_run_only(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "lib")
    import postrender

    for name, text in {"demo": "old", "ci": "old", ".new": "new"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.html").write_text(text)
    postrender.keep(tmp_path / ".new", "ci")
    assert (tmp_path / "ci" / "index.html").read_text() == "new"
    assert (tmp_path / "demo" / "index.html").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new", "ci", "demo"]
    folder = yaml.safe_load((ROOT / "_quarto.yml").read_text())["project"]["output-dir"]
    assert folder.split("/")[-1] == ".new", "which no run can be called: Quarto empties it at once"


@pytest.mark.skipif(shutil.which("quarto") is None, reason="no Quarto on the PATH")
def test_quarto_reads_the_project():
    done = subprocess.run(["quarto", "inspect", str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_an_interrupted_rendering_leaves_no_outputs_in_the_notebooks(tmp_path):
    """Quarto writes them into the sources while it runs, and runs nothing when it is interrupted."""
    cell = nbformat.v4.new_code_cell("1", execution_count=1, outputs=[nbformat.v4.new_output("stream", text="1")])
    path = tmp_path / "notebooks" / "a.ipynb"
    path.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    (tmp_path / "data").mkdir()
    for name in ("_quarto.yml", "data/models.yml"):
        (tmp_path / name).touch()
    rendering = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    command = [sys.executable, str(ROOT / "lib" / "postrender.py"), "--after", str(rendering.pid)]
    cleaning = subprocess.Popen(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT / "lib")})
    with pytest.raises(subprocess.TimeoutExpired):
        cleaning.wait(2)
    assert nbformat.read(path, 4).cells[0].outputs
    rendering.kill()
    rendering.wait()
    assert cleaning.wait(30) == 0
    assert not nbformat.read(path, 4).cells[0].outputs


@pytest.mark.slow
def test_a_notebook_whose_outputs_cannot_be_taken_out_stays_as_it_was(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "lib")
    import postrender

    path = tmp_path / "a.ipynb"
    cell = nbformat.v4.new_code_cell("1", execution_count=1)
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    before = path.read_text()
    script = (  # as on a full disk
        "import pathlib, postrender, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "postrender.strip_outputs(pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT / "lib")}, capture_output=True)
    assert done.returncode and path.read_text() == before
    postrender.strip_outputs(path)
    assert nbformat.read(path, 4).cells[0].execution_count is None
    assert [left.name for left in tmp_path.iterdir()] == ["a.ipynb"], "what the other left is removed"


RENDERING = """
import subprocess, sys
subprocess.run([sys.executable, "-c", '''
import os, runpy, sys, time
import token_geometry.__main__

def run(words):
    print(os.getpid(), flush=True)
    time.sleep(1000)

token_geometry.__main__.main = run
runpy.run_path(sys.argv[1], run_name="__main__")
''', sys.argv[1]])
"""


@pytest.mark.slow
def test_what_comes_before_rendering_ends_with_the_rendering(tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("_quarto.yml", "data/models.yml"):
        (tmp_path / name).touch()
    command = [sys.executable, "-c", RENDERING, str(ROOT / "lib" / "prerender.py")]
    given = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(ROOT / "lib")}}
    rendering = subprocess.Popen(command, **given, stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(rendering.stdout.readline()))
    rendering.kill()
    rendering.wait()
    psutil.wait_procs([child], timeout=60)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


@pytest.mark.slow
def test_what_comes_before_rendering_ends_though_the_rendering_ended_before_it_looked(tmp_path):
    script = "import prerender; prerender.processes.end_with(prerender.PARENT); import time; time.sleep(60)"
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    given = {"PYTHONPATH": str(ROOT / "lib"), "TOKEN_GEOMETRY_PARENT": gone.stdout.strip()}
    begin = time.monotonic()
    assert subprocess.run([sys.executable, "-c", script], env=os.environ | given, cwd=tmp_path).returncode == 1
    assert time.monotonic() - begin < 40


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "/a/b"), OSError("broken")])
def test_what_the_system_refuses_is_one_line(error, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(declaration, "load", fail)
    assert main(["run"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and line.endswith(": check disk space and permissions")
    assert (error.strerror or "broken") in line and (error.filename or "a file") in line


def test_no_page_includes_a_file_that_rendering_makes():
    # Quarto reads all pages before it runs what makes them, so a first rendering would end there
    root = project.root()
    pages = [*root.glob("*.qmd"), *root.glob("book/*.qmd"), *root.glob("notebooks/*.ipynb")]
    assert len(pages) > 15
    included = [
        (page.name, name) for page in pages for name in re.findall(r"{{< include (\S+) >}}", page.read_text())
    ]
    assert [(page, name) for page, name in included if name.startswith("_")] == []
