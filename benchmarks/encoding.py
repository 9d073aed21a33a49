"""How long PyQUBO takes to encode a dense 80-block problem: our way and the naive way.

python benchmarks/encoding.py
"""

import time

import numpy as np
import pyqubo

from qblock.encoding import Encoding
from qblock.penalty import penalty_weight
from qblock.problem import BlockRemovalProblem, Sensitivity


def main() -> None:
    n, m = 80, 16
    A = np.random.default_rng(0).standard_normal((2048, n))
    problem = BlockRemovalProblem(Sensitivity.from_samples(A), remove=m)
    reduced = problem.reduced

    started = time.perf_counter()
    encoding = Encoding(reduced)
    _ = encoding.model
    compiled = time.perf_counter()
    ours = compiled - started
    weight = penalty_weight(reduced)
    weighed = time.perf_counter()
    encoding.bqm(weight)
    first = time.perf_counter()
    encoding.bqm(2 * weight)
    second = time.perf_counter()
    print(f"N = {n}, M = {m}, dense")
    print(f"build and compile           {ours:8.3f} s")
    print(f"proved penalty weight       {weighed - compiled:8.3f} s")
    print(f"to BQM                      {first - weighed:8.3f} s")
    print(f"to BQM with another weight  {second - first:8.3f} s")

    started = time.perf_counter()
    x = pyqubo.Array.create("x", shape=n, vartype="BINARY")
    energy = sum(reduced.Q[i, j] * x[i] * x[j] for i in range(n) for j in range(n))
    energy += pyqubo.Placeholder("lambda") * (sum(x) - m) ** 2
    built = time.perf_counter()
    model = energy.compile()
    compiled_naive = time.perf_counter()
    model.to_bqm(feed_dict={"lambda": weight})
    print(f"naive: sum over all pairs   {built - started:8.3f} s")
    print(f"naive: compile              {compiled_naive - built:8.3f} s")
    print(f"naive: to BQM               {time.perf_counter() - compiled_naive:8.3f} s")
    print(f"naive / ours, build and compile: {(compiled_naive - started) / ours:.1f}")


if __name__ == "__main__":
    main()
