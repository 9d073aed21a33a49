import numpy as np
import pytest
from hypothesis import given, settings
from support import problems

from qblock.convexify import convexifying_shift


@given(problems(undecided=True))
@settings(max_examples=100)
def test_shift_makes_the_form_convex(problem):
    Q = problem.Q
    shift = convexifying_shift(Q)
    assert np.linalg.eigvalsh(Q - np.diag(shift))[0] >= -1e-12 * max(1.0, np.abs(Q).max()) * len(Q)


def test_shift_is_better_than_the_smallest_eigenvalue():
    A = np.random.default_rng(1).standard_normal((30, 12)) * np.geomspace(0.1, 10, 12)
    Q = A.T @ A / 30
    assert convexifying_shift(Q).sum() > 2 * len(Q) * np.linalg.eigvalsh(Q)[0]


@pytest.mark.parametrize("function", ["inv", "solve"])
def test_a_matrix_singular_to_working_precision_ends_the_iteration(monkeypatch, function):
    """Scales that differ by 1e8 lead there, rarely; here the third step is made to fail."""
    real, calls = getattr(np.linalg, function), []

    def fail_at_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise np.linalg.LinAlgError("Singular matrix")
        return real(*arguments)

    monkeypatch.setattr(np.linalg, function, fail_at_third)
    A = np.random.default_rng(1).standard_normal((30, 12)) * np.geomspace(0.1, 10, 12)
    shift = convexifying_shift(A.T @ A)
    assert len(calls) > 2
    assert np.linalg.eigvalsh(A.T @ A - np.diag(shift))[0] >= -1e-9
