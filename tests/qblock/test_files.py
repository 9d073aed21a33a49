import os
import subprocess
import sys

import numpy as np
import pytest

from qblock.errors import ProblemError
from qblock.files import atomic_write, bundled_instances, load_sensitivity, save_sensitivity
from qblock.problem import Sensitivity

A = np.random.default_rng(0).standard_normal((9, 4))
H = A.T @ A / 9


def test_round_trip_keeps_everything(tmp_path):
    sensitivity = Sensitivity.from_samples(
        A,
        blocks=("a", "b", "ü", "d"),
        groups=("x", "y", "x", "y"),
        name="toy",
        provenance={"model": "m", "tokens": 12, "nested": {"seed": None}},
    )
    again = load_sensitivity(save_sensitivity(sensitivity, tmp_path / "toy.npz"))
    for name in ("H", "g", "A"):
        np.testing.assert_array_equal(getattr(again, name), getattr(sensitivity, name))
    for name in ("blocks", "groups", "name", "curvature", "provenance"):
        assert getattr(again, name) == getattr(sensitivity, name)


def test_layouts_of_other_origin(tmp_path):
    np.savez(tmp_path / "h.npz", H=H)
    np.savez(tmp_path / "a.npz", A=A)
    np.save(tmp_path / "h.npy", H)
    np.save(tmp_path / "a.npy", A)
    for file in ("h.npz", "a.npz", "h.npy", "a.npy"):
        sensitivity = load_sensitivity(tmp_path / file)
        np.testing.assert_allclose(sensitivity.H, H)
        assert sensitivity.name == file[0]
        assert (sensitivity.A is not None) == (file[0] == "a")


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"A": t}], ids=["tensor", "dictionary"])
def test_published_tensor_file(tmp_path, wrap):
    torch = pytest.importorskip("torch")
    torch.save(wrap(torch.tensor(A).to(torch.bfloat16)), tmp_path / "A.pt")
    sensitivity = load_sensitivity(tmp_path / "A.pt")
    np.testing.assert_allclose(sensitivity.A, A, rtol=1e-2)
    assert sensitivity.H.dtype == np.float64


class _Trap:
    def __reduce__(self):
        return (os.system, ("touch trapped",))


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save(_Trap(), tmp_path / "evil.pt")
    np.save(tmp_path / "evil.npy", np.array([_Trap()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "evil.npz", H=np.array([[_Trap()]], dtype=object))
    for file in ("evil.pt", "evil.npy", "evil.npz"):
        with pytest.raises(ProblemError, match=file):
            load_sensitivity(tmp_path / file)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npz", b"not a zip", "cannot be read"),
        ("x.npy", b"", "cannot be read"),
        ("x.txt", b"1 2", "unknown file type"),
        ("x.pt", b"junk", "plain tensor"),
    ],
)
def test_damaged_files_are_refused(tmp_path, name, content, message):
    if name.endswith("pt"):
        pytest.importorskip("torch")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ProblemError, match=message):
        load_sensitivity(tmp_path / name)


def test_truncated_archive_is_refused(tmp_path):
    path = save_sensitivity(Sensitivity(H=H), tmp_path / "x.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ProblemError, match=r"x\.npz"):
        load_sensitivity(path)


def test_other_refusals(tmp_path):
    with pytest.raises(ProblemError, match="neither a file nor a bundled instance"):
        load_sensitivity("no-such-instance")
    np.savez(tmp_path / "future.npz", H=H, schema=99)
    with pytest.raises(ProblemError, match="schema version 99"):
        load_sensitivity(tmp_path / "future.npz")
    np.savez(tmp_path / "other.npz", B=H)
    with pytest.raises(ProblemError, match="neither H nor A"):
        load_sensitivity(tmp_path / "other.npz")
    np.save(tmp_path / "square.npy", A[:4])
    with pytest.raises(ProblemError, match="key A"):
        load_sensitivity(tmp_path / "square.npy")
    np.save(tmp_path / "vector.npy", A[0])
    with pytest.raises(ProblemError, match="matrix"):
        load_sensitivity(tmp_path / "vector.npy")
    with pytest.raises(ProblemError, match=r"\.npz"):
        save_sensitivity(Sensitivity(H=H), tmp_path / "x.csv")
    with pytest.raises(ProblemError, match="cannot write"):
        save_sensitivity(Sensitivity(H=H), tmp_path / "missing" / "x.npz")


def test_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"old")

    def write_and_stop():
        with atomic_write(path) as stream:
            stream.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


def test_bundled_instances_load_and_say_where_they_come_from():
    assert bundled_instances()
    for name in bundled_instances():
        sensitivity = load_sensitivity(name)
        assert sensitivity.name == name
        assert sensitivity.provenance["model"]
        assert sensitivity.provenance["text"]


def test_importing_qblock_imports_no_heavy_sdk():
    code = (
        "import sys, qblock, qblock.cli; from qblock import backends; backends();"
        "heavy = {'torch', 'dwave.system', 'dwave.cloud', 'qiskit', 'transformers', 'matplotlib'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
