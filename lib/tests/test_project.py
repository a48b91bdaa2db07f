"""What the repository promises about itself: versions, commands, layout."""

import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from token_geometry import project

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


def test_every_command_of_the_readme_is_known_and_run_somewhere():
    blocks = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    commands = {line for block in blocks for line in block.splitlines() if line}
    # where each is run: .ci/run, test_notebooks, test_runs; conda and Quarto on machines that have them
    known = {"make", "papermill", "python", "quarto", "conda"}
    assert {shlex.split(command)[0] for command in commands} <= known
    for command in commands:
        for word in shlex.split(command):
            if word.startswith("notebooks/") or word.endswith(".yml"):
                assert (ROOT / word).is_file(), command
    assert "python -m token_geometry run paper --dry-run" in commands
    ci = (ROOT / ".ci" / "run").read_text()
    assert "make test" in ci and "make book" in ci


def test_chapters_of_the_book_exist_and_the_home_page_is_at_the_root():
    book = yaml.safe_load((ROOT / "_quarto.yml").read_text())["book"]
    assert book["chapters"][0] == "index.qmd"
    assert all((ROOT / chapter).is_file() for chapter in book["chapters"])


@pytest.mark.skipif(shutil.which("quarto") is None, reason="no Quarto on the PATH")
def test_quarto_reads_the_project():
    done = subprocess.run(["quarto", "inspect", str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
