import numpy as np
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
