"""Which way of choosing blocks leaves the best model, and does the energy rank models?

    python benchmarks/selection.py MODEL [--text SOURCE] [--results benchmarks/RESULTS.md]

For the bundled sensitivities of SmolLM2-135M: rank correlation of energy with measured loss at
M = 4 and 8, and the perplexity of the selected model beside that of every baseline at M = 4, 6,
8 and 10. Blocks are chosen on the calibration part of the text and judged on its held-out part.
Losses already measured are kept in a cache file, so that an interrupted run goes on.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from qblock.files import atomic_write, load_sensitivity
from qblock.llm.baselines import BASELINES, choose
from qblock.llm.blocks import ResidualStack, residual_stack
from qblock.llm.load import load_model
from qblock.llm.losses import removal_losses
from qblock.llm.select import lowest, measure, select
from qblock.llm.text import Text, Tokens, load_text
from qblock.llm.validate import Interval, rank_agreement, spread_states
from qblock.problem import BlockRemovalProblem, FloatArray, States
from qblock.spectrum import Spectrum

NAME = "smollm2-135m"
CURVATURES = ("fisher", "gauss-newton", "ablation")
BUDGETS = (4, 6, 8, 10)
NESTED = ("greedy-loss", "iterative-block-influence")
"""Baselines whose choice for a larger budget contains that for a smaller one."""
SEQ_LEN = 128
CANDIDATES, ROUNDS, FINALISTS = 20, 2, 8
SAVE_EVERY = 8
"""States measured between two writes of the cache."""


class Measured:
    """Held-out losses of states and the choices of methods, kept in a file."""

    def __init__(self, path: Path, stack: ResidualStack, heldout: Tokens) -> None:
        self.path, self.stack, self.heldout = path, stack, heldout
        self.known = json.loads(path.read_text()) if path.exists() else {}

    def losses(self, states: States) -> FloatArray:
        """Mean held-out loss of each state, float64 (S,)."""
        keys = ["".join(map(str, state)) for state in states.tolist()]
        missing = [n for n, key in enumerate(keys) if key not in self.known]
        for start in range(0, len(missing), SAVE_EVERY):
            part = missing[start : start + SAVE_EVERY]
            found = removal_losses(self.stack, states[part], self.heldout).mean(axis=1)
            self.known |= {keys[n]: float(loss) for n, loss in zip(part, found, strict=True)}
            self.save()
        return np.array([self.known[key] for key in keys])

    def choice(self, key: str, make: Callable[[], States]) -> States:
        """The state that `make` chooses, or chose in an earlier run."""
        if key not in self.known:
            self.known[key] = make().tolist()
            self.save()
        return np.array(self.known[key], dtype=np.int8)

    def save(self) -> None:
        with atomic_write(self.path) as stream:
            stream.write(json.dumps(self.known).encode())


def agreements(measured: Measured, budget: int, each: int) -> list[tuple[str, list[Interval]]]:
    """Spearman over all, the lowest and the random states, for each curvature.

    All curvatures are judged on the same states: the `each` lowest of every one of them, and as
    many random ones spread over its spectrum.
    """
    problems = {c: _problem(c, budget) for c in CURVATURES}
    none = np.zeros((0, len(measured.stack)), dtype=np.int8)
    low = np.unique([s for p in problems.values() for s in lowest(p, each).states], axis=0)
    spread = np.concatenate(
        [spread_states(p, each, exclude=none, seed=n) for n, p in enumerate(problems.values())]
    )
    both = np.concatenate([low, np.unique(spread, axis=0)])
    losses = measured.losses(both)
    problems["fisher, linear term"] = replace(problems["fisher"], linear=True)
    parts = (slice(None), slice(len(low)), slice(len(low), None))
    return [
        (name, [rank_agreement(p.energy(both)[s], losses[s], "spearman") for s in parts])
        for name, p in problems.items()
    ]


def chosen(
    measured: Measured, stack: ResidualStack, text: Text, rows: int, final_rows: int
) -> dict[str, list[States]]:
    """For each way of choosing, its state at each of the budgets."""
    ways: dict[str, list[States]] = {}
    for curvature in CURVATURES:
        label = f"{curvature}, ground state" + " (published)" * (curvature == "fisher")
        ways[label] = [lowest(_problem(curvature, m), 1).states[0] for m in BUDGETS]
    tokens = text.calibration.rows(rows, SEQ_LEN)
    for curvature, rounds in (("fisher", 1), ("ablation", 1), ("ablation", ROUNDS)):
        label = f"{curvature}, {CANDIDATES} lowest re-ranked"
        if rounds > 1:
            label = f"{curvature}, refined in {rounds} rounds of {CANDIDATES}"
        ways[label] = []
        for budget in BUDGETS:
            problem = _problem(curvature, budget)

            def best(p: BlockRemovalProblem = problem, turns: int = rounds) -> States:
                return _measured(stack, p, tokens, turns)[0]

            ways[label].append(measured.choice(f"{label} {budget}", best))
    finals = text.calibration.rows(final_rows, SEQ_LEN)
    label = f"the same, its best {FINALISTS} measured on {final_rows} rows"
    ways[label] = []
    for budget in BUDGETS:
        problem = _problem("ablation", budget)

        def best_again(p: BlockRemovalProblem = problem) -> States:
            finalists = np.array(_measured(stack, p, tokens, ROUNDS)[:FINALISTS])
            (first, *_) = measure(stack, Spectrum.of_states(p, finalists), finals)
            return p.state_of(first.state.removed)

        ways[label].append(measured.choice(f"{label} {budget}", best_again))
    for name in BASELINES:
        ways[name] = []
        for budget in BUDGETS:
            before = ways[name][-1] if ways[name] and name in NESTED else np.zeros(len(stack))
            drop = [stack.names[i] for i in np.flatnonzero(before)]
            problem = _problem("ablation", budget, drop=drop)
            ways[name].append(
                measured.choice(
                    f"{name} {budget}", lambda n=name, p=problem: choose(n, stack, p, tokens)
                )
            )
    return ways


def _measured(
    stack: ResidualStack, problem: BlockRemovalProblem, tokens: Tokens, rounds: int
) -> list[States]:
    """The states that `select` measures, best first."""
    found = select(stack, problem, tokens, candidates=CANDIDATES, rounds=rounds)
    return [problem.state_of(item.state.removed) for item in found]


def _problem(curvature: str, budget: int, drop: Sequence[str] = ()) -> BlockRemovalProblem:
    return BlockRemovalProblem(load_sensitivity(f"{NAME}-{curvature}"), remove=budget, drop=drop)


def report(
    measured: Measured, text: Text, rows: int, each: int, ways: dict[str, list[States]]
) -> str:
    """The section as markdown."""
    intact = measured.losses(np.zeros((1, len(measured.stack)), dtype=np.int8))[0]
    out = [
        "## selection",
        "",
        f"`python benchmarks/selection.py MODEL`: SmolLM2-135M-Instruct (Q4_1 GGUF, float32), "
        f"{text.source}; chosen on {rows} rows of {SEQ_LEN} tokens of its calibration part, "
        f"judged on {len(measured.heldout)} held-out rows. Perplexity of the "
        f"intact model {np.exp(intact):.2f}.",
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
        "The blocks:",
        "",
        "| chosen by | " + " | ".join(f"M = {budget}" for budget in BUDGETS) + " |",
        "|---|" + "---|" * len(BUDGETS),
    ]
    for way, found in ways.items():
        cells = [" ".join(map(str, np.flatnonzero(state))) for state in found]
        out.append(f"| {way} | " + " | ".join(cells) + " |")
    out += [
        "",
        f"Spearman correlation of energy and measured held-out loss, with 95 % bootstrap "
        f"intervals; the states are the {each} lowest of each curvature and {each} random ones "
        "spread over each one's spectrum, the same for all rows:",
        "",
        "| energy | M | all | lowest | random |",
        "|---|---|---|---|---|",
    ]
    for budget in (4, 8):
        for name, intervals in agreements(measured, budget, each):
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
    parser.add_argument("--final-rows", type=int, default=24, help="rows for the finalists")
    parser.add_argument("--heldout-rows", type=int, default=16)
    parser.add_argument("--each", type=int, default=4, help="states for the correlations")
    parser.add_argument("--cache", type=Path, default=Path("selection-cache.json"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/RESULTS.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model(options.model)
    stack = residual_stack(loaded.model)
    text = load_text(options.text, loaded.tokenizer)
    heldout = text.heldout.rows(options.heldout_rows, SEQ_LEN)
    measured = Measured(options.cache, stack, heldout)
    ways = chosen(measured, stack, text, options.rows, options.final_rows)
    section = report(measured, text, options.rows, options.each, ways)
    write_section(options.results, section)
    print(section)


if __name__ == "__main__":
    main()
