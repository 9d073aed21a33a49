import numpy as np
from hypothesis import given, settings
from qblock_classical.temperature import best_swap_descent
from support import plain_energy, problems


@given(problems(undecided=True))
@settings(max_examples=100)
def test_swap_descent_ends_feasible_and_locally_optimal(problem):
    reduced = problem.reduced
    state = best_swap_descent(reduced)
    assert reduced.is_feasible(state).all()
    energy = plain_energy(reduced.Q, state)
    for out in np.flatnonzero(state == 1):
        for into in np.flatnonzero(state == 0):
            if reduced.group_of[out] == reduced.group_of[into]:
                other = state.copy()
                other[out], other[into] = 0, 1
                assert plain_energy(reduced.Q, other) >= energy - 1e-9 * np.abs(reduced.Q).sum()
