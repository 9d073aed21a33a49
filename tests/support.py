"""What several tests share: random problems, and the truth by plain enumeration."""

import itertools

import numpy as np
from hypothesis import strategies as st

from qblock.problem import BlockRemovalProblem, FloatArray, Sensitivity, States


def all_states(n: int) -> States:
    """All 2^n states, int8 (2^n, n)."""
    return np.array(list(itertools.product((0, 1), repeat=n)), dtype=np.int8).reshape(2**n, n)


@st.composite
def matrices(draw: st.DrawFn, n: int) -> FloatArray:
    """Symmetric n x n matrices: semidefinite, indefinite, rank one, zero, with many ties, with
    scales far apart."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["psd", "indefinite", "rank one", "zero", "ties", "scales"]))
    B = rng.standard_normal((n, n))
    match kind:
        case "psd":
            return B @ B.T
        case "indefinite":
            return B + B.T
        case "rank one":
            return np.outer(B[0], B[0])
        case "zero":
            return np.zeros((n, n))
        case "ties":
            return np.round(B + B.T)
        case _:
            scales = 10.0 ** rng.uniform(-2, 2, n)
            return (B @ B.T) * scales * scales[:, None]


@st.composite
def problems(draw: st.DrawFn, max_blocks: int = 8, undecided: bool = False) -> BlockRemovalProblem:
    """Problems with one budget or one per group, with and without pins.

    With `undecided` there is a choice left: blocks 0 and 1 share a group, are not pinned, and
    that group's budget can be met in more than one way.
    """
    n = draw(st.integers(2 if undecided else 1, max_blocks))
    groups = draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    pins = draw(st.lists(st.sampled_from(["", "", "keep", "drop"]), min_size=n, max_size=n))
    if undecided:
        groups[1] = groups[0]
        pins[:2] = ["", ""]
    sensitivity = Sensitivity(
        H=draw(matrices(n)), blocks=tuple(f"b{i}" for i in range(n)), groups=tuple(groups)
    )

    def budget(members: list[int]) -> int:
        room = int(undecided and 0 in members)
        fewest = sum(pins[i] == "drop" for i in members) + room
        most = len(members) - sum(pins[i] == "keep" for i in members) - room
        return draw(st.integers(fewest, most))

    remove: int | dict[str, int]
    if draw(st.booleans()):
        remove = budget(list(range(n)))
    else:
        members = {group: [i for i in range(n) if groups[i] == group] for group in groups}
        remove = {group: budget(members[group]) for group in sorted(members)}
    return BlockRemovalProblem(
        sensitivity,
        remove=remove,
        keep=[f"b{i}" for i in range(n) if pins[i] == "keep"],
        drop=[f"b{i}" for i in range(n) if pins[i] == "drop"],
    )


def plain_energy(Q: FloatArray, state: States) -> float:
    """x'Qx by two loops."""
    chosen = [i for i, x in enumerate(state) if x]
    return float(sum(Q[i, j] for i in chosen for j in chosen))
