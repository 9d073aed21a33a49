"""The block-removal problem, from a sensitivity matrix to constrained binary optimisation.

Give each of the N blocks of a language model a coupling alpha_i that multiplies what the
block adds to the residual stream, and let x_i = 1 - alpha_i, so that x_i = 1 means "block i
removed". To second order the calibration loss is

    L(x) = L0 - g.x + 1/2 x'Hx,        g = dL/dalpha,  H = d2L/dalpha2,

and g is nearly zero for a trained model. Removing M blocks at the least loss is then

    minimise E(x) = x'Hx   subject to   sum(x) = M,   x in {0, 1}^N,

an Ising glass at fixed magnetisation (Jansen, Rausch, Hashemi, Montero and Orus,
arXiv:2602.00161). H does not depend on M: one `Sensitivity` serves every budget. A
`BlockRemovalProblem` is a sensitivity with a budget; it is the one object that every solver
takes. Its `ReducedProblem` is the same problem with all decided blocks substituted.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qblock.errors import ProblemError

FloatArray: TypeAlias = NDArray[np.float64]
IntArray: TypeAlias = NDArray[np.int64]
States: TypeAlias = NDArray[np.int8]
"""0/1 states, one per row: 1 = block removed."""

SYMMETRY_TOLERANCE = 1e-8
"""Largest `|H - H'|` relative to the largest `|H|` that is taken for rounding and averaged away."""


def _frozen(values: ArrayLike, what: str, ndim: int) -> FloatArray:
    """A read-only float64 copy, checked for its dimension and for NaN or infinity."""
    try:
        array = np.array(values, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise ProblemError(f"{what} must be an array of real numbers: {error}") from None
    if array.ndim != ndim:
        raise ProblemError(f"{what} must have {ndim} dimension(s), not shape {array.shape}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        where = ", ".join(str(int(i)) for i in bad[0])
        raise ProblemError(
            f"{what} has {len(bad)} entries that are NaN or infinite (the first at [{where}])"
        )
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """How the calibration loss reacts to each block and pair of blocks.

    Attributes:
        H: float64 (N, N), symmetric curvature of the loss in the couplings. For the ablation
            method, the matrix whose x'Hx is the measured loss change of singles and pairs.
        g: float64 (N,) or None, gradient dL/dalpha at alpha = 1.
        A: float64 (m, N) or None, per-sample gradients d loss_s / d alpha_i; H = A'A / m.
        blocks: N distinct block names; "0" ... "N-1" unless given.
        groups: N group names, such as "attention" or "moe"; one group "blocks" unless given.
        curvature: how H was obtained: "fisher", "gauss-newton", "ablation" or "unknown".
        name: what to call this instance in messages and tables.
        provenance: JSON-like facts on the model, the text and the versions.

    Raises:
        ProblemError: empty, not square, asymmetric beyond `SYMMETRY_TOLERANCE`, NaN or
            infinite, or lengths that do not match.
    """

    H: FloatArray
    g: FloatArray | None = None
    A: FloatArray | None = None
    blocks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    curvature: str = "unknown"
    name: str = "unnamed"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        H = _frozen(self.H, "H", 2)
        n = len(H)
        if H.shape != (n, n):
            raise ProblemError(f"H must be square (blocks x blocks), not of shape {H.shape}")
        if n == 0:
            raise ProblemError("H is empty: a problem needs at least one block")
        asymmetry = float(np.abs(H - H.T).max())
        if asymmetry > SYMMETRY_TOLERANCE * float(np.abs(H).max()):
            raise ProblemError(
                f"H is not symmetric: |H - H'| reaches {asymmetry:.3g}; for a form x'Bx with "
                "asymmetric B pass (B + B') / 2"
            )
        H = (H + H.T) / 2
        H.setflags(write=False)
        set_field = object.__setattr__  # the dataclass is frozen; this is its constructor
        set_field(self, "H", H)
        set_field(self, "blocks", tuple(map(str, self.blocks)) or tuple(map(str, range(n))))
        set_field(self, "groups", tuple(map(str, self.groups)) or ("blocks",) * n)
        set_field(self, "provenance", dict(self.provenance))
        if self.g is not None:
            set_field(self, "g", _frozen(self.g, "g", 1))
        if self.A is not None:
            set_field(self, "A", _frozen(self.A, "A", 2))
        for what, length in (
            ("block names", len(self.blocks)),
            ("group names", len(self.groups)),
            ("entries of g", n if self.g is None else len(self.g)),
            ("columns of A", n if self.A is None else self.A.shape[1]),
        ):
            if length != n:
                raise ProblemError(f"{length} {what} for {n} blocks ({self.name})")
        if len(set(self.blocks)) != n:
            twice = next(b for b in self.blocks if self.blocks.count(b) > 1)
            raise ProblemError(f"block name {twice!r} occurs twice ({self.name})")

    @classmethod
    def from_samples(cls, A: ArrayLike, **fields: Any) -> "Sensitivity":
        """The empirical Fisher estimate H = A'A / m, g = mean(A), from float A of shape (m, N).

        Source: arXiv:2602.00161, the second-order term with per-sample gradients.
        """
        samples = _frozen(A, "A", 2)
        if samples.size == 0:
            raise ProblemError(f"A is empty (shape {samples.shape}): expected samples x blocks")
        fields.setdefault("curvature", "fisher")
        H = samples.T @ samples / len(samples)
        return cls(H=(H + H.T) / 2, g=samples.mean(axis=0), A=samples, **fields)

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def effective_rank(self) -> float:
        """Participation ratio tr(H)^2 / tr(H^2) of the spectrum, between 1 and N.

        What makes an instance hard is a low value of this, not a large N.
        """
        squared = float(np.sum(self.H**2))
        return float(np.trace(self.H)) ** 2 / squared if squared else 0.0


@dataclass(frozen=True)
class Budget:
    """Remove exactly `count` of the blocks at `members` (indices, ascending)."""

    group: str
    members: tuple[int, ...]
    count: int


@dataclass(frozen=True, eq=False)
class ReducedProblem:
    """What is left to decide once pins and budgets of "none" or "all" are substituted.

    Minimise y'Qy + offset over y in {0, 1}^n with sum(y[group_of == k]) == budgets[k] for each
    of the K groups. Every group has 0 < budgets[k] < its size, so n = 0 or there is a choice.

    Attributes:
        Q: float64 (n, n), symmetric, linear terms on the diagonal (y_i = y_i^2).
        offset: energy of the blocks already decided.
        group_of: int64 (n,), group index of each variable, 0 ... K-1.
        budgets: int64 (K,).
        blocks: n block names, in the order of the variables.
        free: int64 (n,), index of each variable among all blocks.
        fixed: int8 (N,), the decided blocks' values; 0 where still free.
    """

    Q: FloatArray
    offset: float
    group_of: IntArray
    budgets: IntArray
    blocks: tuple[str, ...]
    free: IntArray
    fixed: States

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def num_feasible(self) -> int:
        """Number of feasible states (an exact integer)."""
        sizes = np.bincount(self.group_of, minlength=len(self.budgets))
        return math.prod(
            math.comb(int(n), int(m)) for n, m in zip(sizes, self.budgets, strict=True)
        )

    def lift(self, states: ArrayLike) -> States:
        """Free-variable states (S, n) as states over all blocks (S, N), int8."""
        free_states = np.atleast_2d(np.asarray(states, dtype=np.int8))
        lifted = np.tile(self.fixed, (len(free_states), 1))
        lifted[:, self.free] = free_states
        return lifted

    def is_feasible(self, states: ArrayLike) -> NDArray[np.bool_]:
        """Which of the states (S, n) meet every budget."""
        free_states = np.atleast_2d(np.asarray(states, dtype=np.int64))
        counts = free_states @ (self.group_of[:, None] == np.arange(len(self.budgets)))
        return np.asarray((counts == self.budgets).all(axis=1))


@dataclass(frozen=True, eq=False)
class BlockRemovalProblem:
    """A sensitivity plus a budget: the object that every solver takes. Equal by content.

    Attributes:
        sensitivity: the loss model; never changed.
        remove: how many blocks to remove in all, or a mapping from group name to how many of
            that group; a group that is not named keeps all its blocks.
        keep: names of blocks that must stay.
        drop: names of blocks that must go (they count towards the budget).
        linear: keep the gradient, E(x) = x'Hx - 2 g.x, instead of dropping it as the paper does.

    Raises:
        ProblemError: a budget outside its group, an unknown block or group, pins that
            contradict each other or the budget, or `linear` without a gradient.
    """

    sensitivity: Sensitivity
    remove: int | Mapping[str, int]
    keep: Iterable[str] = ()
    drop: Iterable[str] = ()
    linear: bool = False

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        remove = self.remove
        set_field(self, "remove", dict(remove) if isinstance(remove, Mapping) else remove)
        set_field(self, "keep", self._known_blocks("keep", self.keep))
        set_field(self, "drop", self._known_blocks("drop", self.drop))
        both = set(self.keep) & set(self.drop)
        if both:
            raise ProblemError(f"block {min(both)!r} is pinned twice, by keep= and by drop=")
        if self.linear and self.sensitivity.g is None:
            raise ProblemError(
                f"linear=True needs the gradient g, which {self.sensitivity.name!r} does not hold"
            )
        for budget in self.budgets:
            self._check_budget(budget)

    def _known_blocks(self, what: str, names: Iterable[str]) -> tuple[str, ...]:
        known = {name: index for index, name in enumerate(self.sensitivity.blocks)}
        wanted = [names] if isinstance(names, str) else [str(name) for name in names]
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise ProblemError(
                f"{what}={unknown[0]!r} names no block of {self.sensitivity.name!r}, "
                f"whose blocks are {self.blocks[0]!r} to {self.blocks[-1]!r}"
            )
        return tuple(sorted(set(wanted), key=known.__getitem__))

    def _check_budget(self, budget: Budget) -> None:
        names = [self.blocks[i] for i in budget.members]
        where = f"budget `remove={self.remove}`, instance {self.sensitivity.name!r}"
        if not 0 <= budget.count <= len(names):
            raise ProblemError(
                f"{budget.count} blocks cannot be removed from {len(names)} ({where})"
            )
        must = sum(name in self.drop for name in names)
        may = len(names) - sum(name in self.keep for name in names)
        if not must <= budget.count <= may:
            raise ProblemError(
                f"{budget.count} blocks of group {budget.group!r} cannot be removed when "
                f"drop= forces {must} and keep= leaves {may} ({where})"
            )

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of all N blocks."""
        return self.sensitivity.blocks

    def __len__(self) -> int:
        return len(self.blocks)

    @cached_property
    def budgets(self) -> tuple[Budget, ...]:
        """One budget over all blocks, or one for each group in order of appearance."""
        if not isinstance(self.remove, Mapping):
            return (Budget("blocks", tuple(range(len(self))), self._count(self.remove)),)
        groups = dict.fromkeys(self.sensitivity.groups)
        unknown = set(self.remove) - set(groups)
        if unknown:
            raise ProblemError(
                f"no block of {self.sensitivity.name!r} is in group {min(unknown)!r}; "
                f"its groups are {', '.join(groups)}"
            )
        return tuple(
            Budget(
                group,
                tuple(i for i, of in enumerate(self.sensitivity.groups) if of == group),
                self._count(self.remove.get(group, 0)),
            )
            for group in groups
        )

    @staticmethod
    def _count(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise ProblemError(f"a budget is a whole number of blocks, not {value!r}")
        return int(value)

    @cached_property
    def Q(self) -> FloatArray:
        """float64 (N, N): E(x) = x'Qx, with any linear term on the diagonal (x_i = x_i^2)."""
        Q = self.sensitivity.H
        if self.linear and self.sensitivity.g is not None:
            Q = Q - 2 * np.diag(self.sensitivity.g)
            Q.setflags(write=False)
        return Q

    def energy(self, states: ArrayLike) -> FloatArray:
        """E(x) = x'Qx of 0/1 states (S, N) as float64 (S,); the one definition of the energy.

        Infeasible states have an energy too. A single state of shape (N,) gives shape (1,).

        Raises:
            ProblemError: another shape, or entries that are not 0 or 1.
        """
        X = np.asarray(states)
        if X.ndim == 1:
            X = X[None]
        if X.ndim != 2 or X.shape[1] != len(self):
            raise ProblemError(f"states must have shape (S, {len(self)}), not {X.shape}")
        if not np.isin(X, (0, 1)).all():
            raise ProblemError("states hold 0 (keep) and 1 (remove) only")
        X = X.astype(np.float64)
        return np.asarray(np.einsum("si,si->s", X @ self.Q, X))

    def is_feasible(self, states: ArrayLike) -> NDArray[np.bool_]:
        """Which of the 0/1 states (S, N) meet every budget and pin, as bool (S,)."""
        X = np.atleast_2d(np.asarray(states, dtype=np.int64))
        feasible = np.ones(len(X), dtype=np.bool_)
        for budget in self.budgets:
            feasible &= X[:, list(budget.members)].sum(axis=1) == budget.count
        index = self.blocks.index
        feasible &= (X[:, [index(b) for b in self.keep]] == 0).all(axis=1)
        feasible &= (X[:, [index(b) for b in self.drop]] == 1).all(axis=1)
        return feasible

    def state_of(self, removed: Iterable[str]) -> States:
        """The 0/1 state (N,), int8, that removes exactly the named blocks."""
        names = self._known_blocks("removed", removed)
        return np.array([block in names for block in self.blocks], dtype=np.int8)

    @cached_property
    def reduced(self) -> ReducedProblem:
        """The same problem over the undecided blocks only; what backends work on."""
        fixed = np.full(len(self), -1, dtype=np.int8)
        fixed[[name in self.keep for name in self.blocks]] = 0
        fixed[[name in self.drop for name in self.blocks]] = 1
        group_of = np.full(len(self), -1, dtype=np.int64)
        counts: list[int] = []
        for budget in self.budgets:
            members = np.array(budget.members, dtype=np.int64)
            open_members = members[fixed[members] == -1]
            left = budget.count - int((fixed[members] == 1).sum())
            if left in (0, len(open_members)):  # no choice left in this group
                fixed[open_members] = int(left > 0)
            else:
                group_of[open_members] = len(counts)
                counts.append(left)
        free = np.flatnonzero(fixed == -1)
        fixed[free] = 0
        gone = fixed.astype(np.float64)
        Q = self.Q[np.ix_(free, free)] + np.diag(2 * (self.Q[free] @ gone))
        return ReducedProblem(
            Q=Q,
            offset=float(gone @ self.Q @ gone),
            group_of=group_of[free],
            budgets=np.array(counts, dtype=np.int64),
            blocks=tuple(self.blocks[i] for i in free),
            free=free,
            fixed=fixed,
        )

    @cached_property
    def id(self) -> str:
        """Hex digest of the content: energies, block names, budgets and pins."""
        digest = hashlib.sha256(self.Q.astype("<f8").tobytes())
        budgets = [(b.group, b.members, b.count) for b in self.budgets]
        digest.update(json.dumps([self.blocks, budgets, self.keep, self.drop]).encode())
        return digest.hexdigest()[:32]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BlockRemovalProblem) and self.id == other.id

    def __hash__(self) -> int:
        return hash(self.id)
