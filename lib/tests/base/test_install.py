"""The installer and the Makefile, on a small project that needs no network: whole environments or none."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
import readme

from token_geometry.base import project

pytestmark = pytest.mark.slow

no_uv = not (Path(sys.executable).parent / "uv").exists()
old_python = sys.version_info < (3, 13) or shutil.which("python3.12") or shutil.which("python3.11")
needs_uv = pytest.param(True, marks=pytest.mark.skipif(no_uv, reason="no uv in this environment"))

BACKEND = """
import pathlib, time, zipfile
def get_requires_for_build_editable(config_settings=None):
    return []
def build_editable(folder, config_settings=None, metadata_directory=None):
    while pathlib.Path("wait").exists():
        pathlib.Path("waits").touch()
        time.sleep(0.1)
    name = "token_geometry-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        info = "token_geometry-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: token_geometry\\nVersion: 1.0\\n"
            "Provides-Extra: report\\nProvides-Extra: test\\nProvides-Extra: dev\\n"
            "Requires-Dist: torch\\nRequires-Dist: mypy ; extra == 'dev'\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
        wheel.writestr("token_geometry.pth", str(pathlib.Path.cwd()))
    return name
"""


@pytest.fixture
def small(tmp_path):
    """A checkout whose package needs one small wheel, in an index that is a folder."""
    folder, lib, index = tmp_path / "project", tmp_path / "project" / "lib", tmp_path / "index"
    lib.mkdir(parents=True), index.mkdir()
    shutil.copy(project.root() / "Makefile", folder)
    shutil.copy(project.root() / "lib" / "install.py", lib)
    (lib / "token_geometry").mkdir()
    (lib / "backend.py").write_text(BACKEND)
    (lib / "constraints.txt").write_text("torch==1.0+cpu\nuv==0.0.1\n")
    (lib / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "token_geometry"\ndynamic = ["version", "dependencies", "optional-dependencies"]\n'
    )
    add_wheel(index, "torch", "1.0+cpu")
    return folder


def add_wheel(index, name, version, content="value = 1\n"):
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def environment(folder, *, uv, **more):
    """Variables under which pip, and uv by pip's settings, know the folder only."""
    path = [str(Path(sys.executable).parent)] if uv else []
    path = [*path, *(p for p in os.environ["PATH"].split(":") if not (Path(p) / "uv").exists())]
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "UV_", "VIRTUAL_", "CONDA_"))
    }
    index = str(folder.parent / "index")
    return kept | {
        "PATH": ":".join(path), "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": index,
        "UV_CACHE_DIR": str(folder.parent / "uv"), "MAKEFLAGS": "", "PYTHONPATH": "",
    } | more  # fmt: skip


def make(folder, *arguments, target="environment", uv=not no_uv, **more):
    """Run make: with uv where it is there, which is quicker, or with pip alone."""
    command = ["make", "--no-print-directory", target, f"PYTHON={sys.executable}", *arguments]
    variables = environment(folder, uv=uv, **more)
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


def refusal(done) -> str:
    """The one line that make shows before its own."""
    assert done.returncode != 0, done.stdout
    line, *others = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert others == [] and line.startswith("error: "), done.stderr
    return line


def imports(folder) -> bool:
    return not subprocess.run([folder / ".venv" / "bin" / "python", "-c", "import torch"]).returncode


@pytest.mark.parametrize("uv", [False, needs_uv])
def test_an_environment_is_made_once_and_brought_up_to_date(small, uv):
    done = make(small, uv=uv)
    assert done.returncode == 0, done.stderr
    assert f"with {'uv' if uv else 'pip'}" in done.stdout and ".venv is ready" in done.stdout
    assert "CUDA" not in done.stdout
    assert imports(small)
    again = make(small, uv=uv)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    add_wheel(small.parent / "index", "torch", "2.0")
    (small / "lib" / "constraints.txt").write_text("torch==2.0\nuv==0.0.1\n")
    changed = make(small, uv=uv)
    assert "is made anew" not in changed.stdout and ".venv is ready" in changed.stdout, changed.stderr
    if sys.platform == "linux":
        assert "torch comes with CUDA here: about 3 GB" in changed.stdout
    assert (small / ".venv" / "bin" / "python").exists() and imports(small)


def test_the_tools_of_make_check_come_when_it_is_called_and_stay(small):
    add_wheel(small.parent / "index", "mypy", "1.0")
    assert make(small).returncode == 0
    python = small / ".venv" / "bin" / "python"
    assert subprocess.run([python, "-c", "import mypy"], capture_output=True).returncode
    (small / "lib" / "check.py").write_text("import mypy; print('checked')")
    done = make(small, target="check")
    assert "is made anew" not in done.stdout and done.stdout.endswith("checked\n"), done.stderr
    assert make(small, target="check").stdout == "checked\n" and make(small).stdout == ""
    (small / "lib" / "constraints.txt").write_text("torch==1.0+cpu\nuv==0.0.1\n# other versions\n")
    assert ".venv is ready" in make(small).stdout
    assert make(small, target="check").stdout == "checked\n"


@pytest.mark.parametrize("version", [(3, 10, 2), (3, 15, 0)])
def test_a_python_without_wheels_is_refused_before_anything_starts(small, version):
    pretend = f"import runpy, sys; sys.version_info = {version!r}; sys.argv = ['install.py']; "
    pretend += "runpy.run_path('lib/install.py', run_name='__main__')"
    variables = environment(small, uv=False)
    done = subprocess.run(
        [sys.executable, "-c", pretend], cwd=small, env=variables, capture_output=True, text=True
    )
    line = refusal(done)
    assert f"Python 3.{version[1]} (" in line and "3.11 to 3.14" in line and "PYTHON=" in line
    assert not (small / ".venv").exists()


def test_the_installer_is_read_by_old_pythons():
    old = next((name for name in ("python3.8", "python3.9", "python3.10") if runs(name)), None)
    if not old:
        pytest.skip("no old Python here")
    done = subprocess.run([old, project.root() / "lib" / "install.py"], capture_output=True, text=True)
    # silent where the project's .venv is whole
    assert "Traceback" not in done.stderr and (not done.stderr or "3.11 to 3.14" in refusal(done))


def runs(name) -> bool:
    return bool(shutil.which(name)) and not subprocess.run([name, "-c", ""], capture_output=True).returncode


def test_an_environment_of_another_python_or_half_made_is_made_anew(small):
    venv = small / ".venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").symlink_to("/nonexistent/python3.10")
    (venv / "ready").write_text("")
    done = make(small)
    assert "is made anew" in done.stdout and imports(small), done.stderr
    digest = (venv / "ready").read_text().split()[1]
    (venv / "ready").write_text(f"3.10 {digest}\n")
    (venv / "leftover").touch()
    assert "is made anew" in make(small).stdout
    assert imports(small) and not (venv / "leftover").exists()


def test_an_interrupted_installation_is_not_taken_for_a_whole_one(small):
    (small / "lib" / "wait").touch()
    command = [sys.executable, "lib/install.py"]
    process = subprocess.Popen(
        command,
        cwd=small,
        env=environment(small, uv=not no_uv),
        start_new_session=True,
    )
    while not (small / "lib" / "waits").exists():
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (small / ".venv").is_dir() and not (small / ".venv" / "ready").exists()
    (small / "lib" / "wait").unlink()
    done = make(small)
    assert "is made anew" in done.stdout and ".venv is ready" in done.stdout
    assert imports(small)


def test_without_the_module_venv_the_way_to_it_is_said(small, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "venv.py").write_text("import sys; sys.exit('No module named ensurepip')")
    line = refusal(make(small, uv=False, PYTHONPATH=str(tmp_path / "broken")))
    assert "cannot make environments (No module named ensurepip)" in line and "python3-venv" in line
    assert make(small).returncode == 0


def test_an_active_environment_that_lacks_the_package_is_left_alone(small, tmp_path):
    active = tmp_path / "active"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", active], check=True)
    before = sorted(active.rglob("*"))
    line = refusal(make(small, VIRTUAL_ENV=str(active)))
    assert str(active) in line and "lacks token_geometry" in line and "deactivate it" in line
    assert sorted(active.rglob("*")) == before and not (small / ".venv").exists()
    assert "mypy" not in line and "lib[report,test]" in line
    line = refusal(make(small, target="check", VIRTUAL_ENV=str(active)))
    assert "ruff, mypy, importlinter" in line and "lib[report,test,dev]" in line
    conda = {"CONDA_PREFIX": str(tmp_path / "nothing")}
    assert "a working Python" in refusal(make(small, **conda, CONDA_DEFAULT_ENV="own"))
    assert make(small, **conda, CONDA_DEFAULT_ENV="base").returncode == 0 and (small / ".venv" / "ready").exists()


def test_a_package_that_the_index_has_not_is_one_line(small):
    (small.parent / "index" / "torch-1.0+cpu-py3-none-any.whl").unlink()
    line = refusal(make(small, uv=False))
    assert "torch" in line and not (small / ".venv" / "ready").exists()


@pytest.mark.parametrize("needed", [None, 0])
def test_a_disk_without_space_is_one_line(small, tmp_path, needed):
    """Refused beforehand, or where the disk fills up while it installs."""
    installer = small / "lib" / "install.py"
    if needed is not None:
        text = installer.read_text()
        assert 'GB = {"cpu": 3,' in text
        installer.write_text(text.replace('GB = {"cpu": 3,', f'GB = {{"cpu": {needed},'))
        add_wheel(tmp_path / "index", "torch", "1.0+cpu", "".join(f"x{n} = {n}\n" for n in range(2_000_000)))
    disk = tmp_path / "disk"
    disk.mkdir()
    script = 'mount -t tmpfs -o size=40m none "$1" && cp -r "$2/." "$1" && cd "$1" && "$3" lib/install.py'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", disk, small, sys.executable]
    try:
        done = subprocess.run(command, env=environment(small, uv=False), capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.stderr.startswith(("unshare:", "mount:")):
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    line = refusal(done)
    assert "make space" in line
    assert ("needs about 3 GB" if needed is None else "the disk is full") in line


@pytest.mark.skipif(no_uv, reason="no uv in this environment")
@pytest.mark.skipif(not old_python, reason="no Python 3.11 or 3.12 here, which DADApy takes")
def test_the_environment_of_dadapy_is_whole_or_not_there(small):
    shutil.copy(project.root() / "lib" / "dadapy_gride.py", small / "lib")
    folder = small.parent / "cache" / "dadapy-1"
    command = [sys.executable, "lib/install.py", "--dadapy", str(folder)]
    variables = environment(small, uv=True)
    done = subprocess.run(command, cwd=small, env=variables, capture_output=True, text=True)
    assert "dadapy" in refusal(done) and not folder.exists() and not list(folder.parent.glob("*"))
    add_wheel(small.parent / "index", "dadapy", "0.3.4")
    # what a killed one leaves
    (folder.parent / "dadapy-1.partial" / "bin").mkdir(parents=True)
    done = subprocess.run(command, cwd=small, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not subprocess.run([folder / "bin" / "python", "-c", "import dadapy"]).returncode
    assert [path.name for path in folder.parent.iterdir()] == ["dadapy-1"]


def test_the_library_installs_by_itself_and_brings_its_command(tmp_path):
    """Into an environment that has its requirements, of those that these tests run with, and not the report's."""
    shutil.copytree(project.root() / "lib" / "token_geometry", tmp_path / "lib" / "token_geometry")
    shutil.copy(project.root() / "lib" / "pyproject.toml", tmp_path / "lib")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "requirements.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")))
    declared = tomllib.loads((project.root() / "lib" / "pyproject.toml").read_text())["project"]
    report = {
        re.match(r"[\w-]+", line)[0].replace("-python", "") for line in declared["optional-dependencies"]["report"]
    }
    absent = {name.removesuffix("_binary").replace("-", "_") for name in report} | {"IPython", "jsonschema"}
    assert {"altair", "panflute", "papermill", "pypandoc", "vl_convert"} < absent
    (site / "without_report.pth").write_text(f"import sys; sys.modules.update(dict.fromkeys({sorted(absent)}))")
    bin_ = tmp_path / "venv" / "bin"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ((pip, *words),) = readme.commands("pip")
    done = subprocess.run([bin_ / pip, *words], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (site / "token_geometry" / "py.typed").exists()

    def command(*words):
        given = {"cwd": project.root(), "env": variables, "capture_output": True, "text": True}
        return subprocess.run([bin_ / "token-geometry", *words], **given)

    done = command("run", "ci", "--dry-run")
    assert done.returncode == 0 and "observables" in done.stdout, done.stderr
    done = command("book", "ci", "--renderer", "pandoc")
    assert done.returncode == 1 and done.stderr == (
        "error: what you ask for needs panflute: pip install './lib[report]', in the project's folder\n"
    )
