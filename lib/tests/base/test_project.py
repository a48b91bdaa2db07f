"""What the repository promises about itself: versions, commands, layout."""

import importlib.metadata
import shlex
import shutil
import subprocess

import pytest
import readme
import yaml
from packaging.specifiers import SpecifierSet

from token_geometry.__main__ import main
from token_geometry.base import project
from token_geometry.chapters.charts import BUNDLE
from token_geometry.runs import declaration

ROOT = project.root()


def pins(lines) -> dict[str, str]:
    return dict(line.strip().split("==") for line in lines if "==" in line)


def test_the_conda_environment_has_the_versions_of_the_requirements():
    requirements = pins((ROOT / "lib" / "requirements.txt").read_text().splitlines())
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    through_pip = pins(environment["dependencies"][-1]["pip"])
    asked = "quarto-cli jupyter papermill torch transformers accelerate dadapy numpy xarray netCDF4 altair"
    assert set(asked.split()) <= set(through_pip)
    through_pip.pop("quarto-cli")
    assert through_pip.items() <= requirements.items()
    assert requirements["torch"] == "2.13.0"


def test_every_pinned_package_installs_on_the_python_of_debian_12():
    refusing = {}
    for name in pins((ROOT / "lib" / "requirements.txt").read_text().splitlines()):
        needed = importlib.metadata.metadata(name).get("Requires-Python") or ""
        if not SpecifierSet(needed).contains("3.11.2"):
            refusing[name] = needed
    assert refusing == {}


def test_every_command_of_the_readme_is_run_as_it_stands():
    everything = readme.commands()
    ci = [shlex.split(line) for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make")]
    run = [words for words in everything if any(line[: len(words)] == words for line in ci)]
    # by test_notebooks and test_benchmarks
    run += readme.commands("papermill")
    run += readme.commands("torchrun")  # by test_processes
    run += [words for words in readme.commands("python") if words[1].startswith("lib/benchmarks/")]
    for words in readme.commands("python", "-m", "token_geometry"):
        assert main(words[3:]) == 0
        run.append(words)
    # What takes a program that CI has not is at least about things that exist.
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["name"]
    run += [shlex.split("conda env create -f environment.yml"), ["conda", "activate", environment]]
    run += [["quarto", "render"], *(["quarto", "render", "--profile", name] for name in declaration.names())]
    assert [words for words in everything if words not in run] == []


def test_chapters_of_the_book_exist_and_the_home_page_is_at_the_root():
    book = yaml.safe_load((ROOT / "_quarto.yml").read_text())["book"]
    assert book["chapters"][0] == "index.qmd"
    assert all((ROOT / chapter).is_file() for chapter in book["chapters"])


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


@pytest.mark.skipif(shutil.which("quarto") is None, reason="no Quarto on the PATH")
def test_quarto_reads_the_project():
    done = subprocess.run(["quarto", "inspect", str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
