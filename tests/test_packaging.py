"""The wheel as a user gets it: built from the tree, installed into an empty environment."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def test_only_qblock_packages_land_in_site_packages_and_the_command_works(wheel, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    before = set(_site(python).iterdir())
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel],
        check=True, timeout=120,
    )  # fmt: skip
    landed = {path.name for path in set(_site(python).iterdir()) - before}
    assert "qblock" in landed
    assert "qblock_classical" in landed
    assert all(name.startswith("qblock") for name in landed), landed
    # The dependencies are those of the environment that runs the tests.
    borrowed = os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))
    done = subprocess.run(
        [tmp_path / "env" / "bin" / "qblock", "solve", "smollm2-135m-fisher", "--remove", "3",
         "--backend", "fixed-weight-tabu"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": f"{_site(python)}{os.pathsep}{borrowed}"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "100.0% of samples feasible" in done.stdout


def _site(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([python, "-I", "-c", code], text=True).strip())
