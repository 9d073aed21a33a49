"""Which way of choosing blocks leaves the best model, and does the energy rank models?

    python benchmarks/selection.py MODEL [--text SOURCE] [--results benchmarks/RESULTS.md]

For the bundled sensitivities of SmolLM2-135M: rank correlation of energy with measured loss at
M = 4 and 8, and the perplexity of the selected model beside that of every baseline at M = 4, 6,
8 and 10. Blocks are chosen on the calibration part of the text and judged on its held-out part.
Losses already measured are kept in a cache file, so that an interrupted run goes on.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qblock.files import atomic_write, load_sensitivity
from qblock.llm.baselines import BASELINES, choose
from qblock.llm.blocks import ResidualStack, residual_stack
from qblock.llm.load import load_model
from qblock.llm.losses import removal_losses
from qblock.llm.select import lowest, select
from qblock.llm.text import Text, Tokens, load_text
from qblock.llm.validate import Interval, rank_agreement, spread_states
from qblock.problem import BlockRemovalProblem, FloatArray, States

NAME = "smollm2-135m"
CURVATURES = ("fisher", "gauss-newton", "ablation")
BUDGETS = (4, 6, 8, 10)
NESTED = ("greedy-loss", "iterative-block-influence")
"""Baselines whose choice for a larger budget contains that for a smaller one."""
SEQ_LEN = 128


class Measured:
    """Held-out losses of states and the choices of methods, kept in a file."""

    def __init__(self, path: Path, stack: ResidualStack, heldout: Tokens) -> None:
        self.path, self.stack, self.heldout = path, stack, heldout
        self.known = json.loads(path.read_text()) if path.exists() else {}

    def losses(self, states: States) -> FloatArray:
        """Mean held-out loss of each state, float64 (S,)."""
        keys = ["".join(map(str, state)) for state in states.tolist()]
        missing = [n for n, key in enumerate(keys) if key not in self.known]
        if missing:
            found = removal_losses(self.stack, states[missing], self.heldout).mean(axis=1)
            self.known |= {keys[n]: float(loss) for n, loss in zip(missing, found, strict=True)}
            self.save()
        return np.array([self.known[key] for key in keys])

    def choices(self, key: str, make: Callable[[], list[States]]) -> list[States]:
        """The states that `make` chooses, or chose in an earlier run."""
        if key not in self.known:
            self.known[key] = [state.tolist() for state in make()]
            self.save()
        return [np.array(state, dtype=np.int8) for state in self.known[key]]

    def save(self) -> None:
        with atomic_write(self.path) as stream:
            stream.write(json.dumps(self.known).encode())


def agreements(measured: Measured, budget: int, states: int) -> list[tuple[str, list[Interval]]]:
    """Spearman over all, the lowest and the random states, for each curvature.

    All curvatures are judged on the same states: the lowest of each, and random ones spread
    over the spectrum of each.
    """
    problems = {
        f"{curvature}{', linear term' if linear else ''}": BlockRemovalProblem(
            load_sensitivity(f"{NAME}-{curvature}"), remove=budget, linear=linear
        )
        for curvature, linear in [(c, False) for c in CURVATURES] + [("fisher", True)]
    }
    none = np.zeros((0, len(measured.stack)), dtype=np.int8)
    each = states // (2 * len(problems))
    low = np.unique([s for p in problems.values() for s in lowest(p, each).states], axis=0)
    spread = np.concatenate(
        [spread_states(p, each, exclude=none, seed=n) for n, p in enumerate(problems.values())]
    )
    spread = np.unique(spread, axis=0)
    both = np.concatenate([low, spread])
    losses = measured.losses(both)
    parts = (slice(None), slice(len(low)), slice(len(low), None))
    return [
        (name, [rank_agreement(p.energy(both)[s], losses[s], "spearman") for s in parts])
        for name, p in problems.items()
    ]


def chosen(
    measured: Measured, stack: ResidualStack, text: Tokens, candidates: int, rounds: int
) -> dict[str, list[States]]:
    """For each way of choosing, its state at each of the budgets."""
    ways: dict[str, list[States]] = {}
    for curvature in CURVATURES:
        sensitivity = load_sensitivity(f"{NAME}-{curvature}")
        problems = [BlockRemovalProblem(sensitivity, remove=budget) for budget in BUDGETS]
        ways[f"{curvature}, ground state"] = [lowest(p, 1).states[0] for p in problems]
        if curvature == "gauss-newton":
            continue
        turns = rounds if curvature == "ablation" else 1
        ways[f"{curvature}, {candidates} lowest re-ranked"] = []
        if turns > 1:
            ways[f"{curvature}, refined in {turns} rounds of {candidates}"] = []
        for problem in problems:

            def make(p: BlockRemovalProblem = problem, turns: int = turns) -> list[States]:
                found = select(stack, p, text, candidates=candidates, rounds=turns)
                first = next(item for item in found if item.state.rank < candidates)
                return [p.state_of(item.state.removed) for item in (first, found[0])]

            first, best = measured.choices(f"{curvature} {problem.remove}", make)
            ways[f"{curvature}, {candidates} lowest re-ranked"].append(first)
            if turns > 1:
                ways[f"{curvature}, refined in {turns} rounds of {candidates}"].append(best)
    for name in BASELINES:
        ways[name] = []
        for budget in BUDGETS:
            before = ways[name][-1] if ways[name] and name in NESTED else np.zeros(len(stack))
            drop = [stack.names[i] for i in np.flatnonzero(before)]
            problem = BlockRemovalProblem(sensitivity, remove=budget, drop=drop)
            ways[name] += measured.choices(
                f"{name} {budget}", lambda n=name, p=problem: [choose(n, stack, p, text)]
            )
    return ways


def report(
    measured: Measured, text: Text, rows: Tokens, states: int, ways: dict[str, list[States]]
) -> str:
    """The section as markdown."""
    intact = measured.losses(np.zeros((1, len(measured.stack)), dtype=np.int8))[0]
    out = [
        "## selection",
        "",
        f"`python benchmarks/selection.py MODEL`: SmolLM2-135M-Instruct (Q4_1 GGUF, float32), "
        f"{text.source}; chosen on {len(rows)} x {SEQ_LEN} tokens of its calibration part, judged "
        f"on {len(measured.heldout)} x {SEQ_LEN} held-out tokens. Perplexity of the intact model "
        f"{np.exp(intact):.2f}.",
        "",
        "Perplexity by the number of removed blocks (best of each column in bold):",
        "",
        "| chosen by | " + " | ".join(f"M = {budget}" for budget in BUDGETS) + " |",
        "|---|" + "---|" * len(BUDGETS),
    ]
    table = {way: np.exp(measured.losses(np.array(found))) for way, found in ways.items()}
    best = np.min(list(table.values()), axis=0)
    for way, row in table.items():
        cells = [f"**{v:.4g}**" if v == b else f"{v:.4g}" for v, b in zip(row, best, strict=True)]
        out.append(f"| {way} | " + " | ".join(cells) + " |")
    out += [
        "",
        "Spearman correlation of energy and measured held-out loss, with 95 % bootstrap intervals; "
        "the states are the lowest of each row and random ones spread over each row's spectrum:",
        "",
        "| energy | M | all | lowest | random |",
        "|---|---|---|---|---|",
    ]
    for budget in (4, 8):
        for name, intervals in agreements(measured, budget, states):
            out.append(f"| {name} | {budget} | " + " | ".join(map(str, intervals)) + " |")
    return "\n".join(out) + "\n"


def write_section(path: Path, section: str) -> None:
    """Put the section in place of the one of the same heading, or at the end."""
    title = section.splitlines()[0]
    text = path.read_text() if path.exists() else "# Measured results\n"
    parts = text.split("\n## ")
    kept = [p for p in parts if not f"## {p}".startswith(title + "\n")]
    body = "\n## ".join(kept).rstrip() + "\n\n" + section
    with atomic_write(path) as stream:
        stream.write(body.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--text", default="builtin:python-docs")
    parser.add_argument("--rows", type=int, default=8, help="rows to choose on")
    parser.add_argument("--heldout-rows", type=int, default=16)
    parser.add_argument("--states", type=int, default=48, help="states for the correlations")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("selection-cache.json"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/RESULTS.md"))
    options = parser.parse_args()
    loaded = load_model(options.model)
    stack = residual_stack(loaded.model)
    text = load_text(options.text, loaded.tokenizer)
    rows = text.calibration.rows(options.rows, SEQ_LEN)
    heldout = text.heldout.rows(options.heldout_rows, SEQ_LEN)
    measured = Measured(options.cache, stack, heldout)
    ways = chosen(measured, stack, rows, options.candidates, options.rounds)
    section = report(measured, text, rows, options.states, ways)
    write_section(options.results, section)
    print(section)


if __name__ == "__main__":
    main()
