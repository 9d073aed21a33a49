"""Which way of choosing blocks leaves the best model, and does the energy rank models?

    python benchmarks/selection.py MODEL [--text SOURCE] [--results benchmarks/RESULTS.md]

For the bundled sensitivities of SmolLM2-135M: the perplexity of the selected model beside that of
every baseline at M = 4, 6, 8 and 10, and the rank correlation of energy with measured loss at
M = 4 and 8. Blocks are chosen on the calibration part of the text and judged on its held-out part.
What is measured is kept in a cache file, so that an interrupted run goes on.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from record import Cache, difference, write_section

from qblock.files import load_sensitivity
from qblock.llm.baselines import BASELINES, cheap_choices, choose
from qblock.llm.blocks import ResidualStack, residual_stack
from qblock.llm.load import load_model
from qblock.llm.losses import removal_losses
from qblock.llm.select import select
from qblock.llm.states import lowest, spread_states
from qblock.llm.text import Text, Tokens, load_text
from qblock.llm.validate import Interval, rank_agreement
from qblock.problem import BlockRemovalProblem, FloatArray, Sensitivity, States

NAME = "smollm2-135m"
CURVATURES = ("fisher", "gauss-newton", "ablation")
BUDGETS = (4, 6, 8, 10)
NESTED = ("greedy-loss", "iterative-block-influence")
"""Baselines whose choice for a larger budget contains that for a smaller one."""
SEQ_LEN = 128
SEARCH_ROWS, FINAL_ROWS = 8, 32
SEARCH = {"candidates": 20, "rounds": 3, "random": 24, "finalists": 8}
CORRELATED = (4, 8)
"""Budgets at which energies and losses are compared."""
REFINE = {"candidates": 64, "random": 48}
"""What the refined energy learns from, on `SEARCH_ROWS` rows."""
SELECTED = "ablation, `select`"
SAVE_EVERY = 4
"""States measured between two writes of the cache."""


class Judge:
    """Held-out losses of states."""

    def __init__(self, cache: Cache, stack: ResidualStack, tokens: Tokens) -> None:
        self.cache, self.stack, self.tokens = cache, stack, tokens

    def rows(self, states: States) -> FloatArray:
        """Loss of each row of text under each state, float64 (S, m)."""
        known = self.cache.known
        keys = [f"{len(self.tokens)} {''.join(map(str, state))}" for state in states.tolist()]
        missing = list({key: n for n, key in enumerate(keys) if key not in known}.values())
        for start in range(0, len(missing), SAVE_EVERY):
            part = missing[start : start + SAVE_EVERY]
            found = removal_losses(self.stack, states[part], self.tokens)
            self.cache.keep({keys[n]: r.tolist() for n, r in zip(part, found, strict=True)})
        return np.array([known[key] for key in keys])

    def losses(self, states: States) -> FloatArray:
        """Mean loss of each state, float64 (S,)."""
        return np.asarray(self.rows(states).mean(axis=1))


def agreements(
    judge: Judge, refined: Sensitivity, budget: int, each: int
) -> list[tuple[str, list[Interval]]]:
    """Spearman over all, the lowest and the random states, for each energy.

    All are judged on the same states: the `each` lowest of every curvature, and as many random
    ones spread over its spectrum. The refined energy has learnt from other random states, and
    from the loss of low ones on other text.
    """
    problems = {c: _problem(c, budget) for c in CURVATURES}
    none = np.zeros((0, len(judge.stack)), dtype=np.int8)
    low = np.unique([s for p in problems.values() for s in lowest(p, each).states], axis=0)
    spread = np.concatenate(
        [spread_states(p, each, exclude=none, seed=n) for n, p in enumerate(problems.values())]
    )
    both = np.concatenate([low, np.unique(spread, axis=0)])
    losses = judge.losses(both)
    problems["fisher, linear term"] = replace(problems["fisher"], linear=True)
    problems["ablation, refined"] = BlockRemovalProblem(refined, remove=budget)
    parts = (slice(None), slice(len(low)), slice(len(low), None))
    return [
        (name, [rank_agreement(p.energy(both)[s], losses[s], "spearman") for s in parts])
        for name, p in problems.items()
    ]


def selections(cache: Cache, stack: ResidualStack, text: Text) -> list[States]:
    """What `select` chooses at each budget."""
    chosen = []
    tokens = text.calibration.rows(FINAL_ROWS, SEQ_LEN)
    for budget in BUDGETS:
        problem = _problem("ablation", budget)

        def run(p: BlockRemovalProblem = problem) -> list[int]:
            rivals = cheap_choices(stack, p, text.calibration.rows(SEARCH_ROWS, SEQ_LEN))
            found = select(
                stack, p, tokens, search_rows=SEARCH_ROWS, challengers=rivals, seed=100, **SEARCH
            )
            return p.state_of(found.best.removed).tolist()

        done = cache.get(f"{SELECTED} {budget} {SEARCH} {SEARCH_ROWS} {FINAL_ROWS}", run)
        chosen.append(np.array(done, dtype=np.int8))
    return chosen


def refinements(cache: Cache, stack: ResidualStack, text: Text) -> dict[int, Sensitivity]:
    """The ablation sensitivity as refined for each of the `CORRELATED` budgets."""
    refined = {}
    tokens = text.calibration.rows(SEARCH_ROWS, SEQ_LEN)
    for budget in CORRELATED:
        problem = _problem("ablation", budget)

        def run(p: BlockRemovalProblem = problem) -> list[list[float]]:
            H: list[list[float]] = select(stack, p, tokens, seed=100, **REFINE).refined.H.tolist()
            return H

        H = cache.get(f"refined {budget} {REFINE} {SEARCH_ROWS}", run)
        refined[budget] = replace(problem.sensitivity, H=np.array(H))
    return refined


def baselines(cache: Cache, stack: ResidualStack, text: Text) -> dict[str, list[States]]:
    """What each baseline chooses at each budget."""
    ways: dict[str, list[States]] = {}
    tokens = text.calibration.rows(SEARCH_ROWS, SEQ_LEN)
    for name in BASELINES:
        before: States = np.zeros(len(stack), dtype=np.int8)
        ways[name] = []
        for budget in BUDGETS:
            drop = [stack.names[i] for i in np.flatnonzero(before)] if name in NESTED else []
            problem = _problem("ablation", budget, drop=drop)
            chosen = cache.get(
                f"{name} {budget}", lambda n=name, p=problem: choose(n, stack, p, tokens).tolist()
            )
            before = np.array(chosen, dtype=np.int8)
            ways[name].append(before)
    return ways


def chosen(cache: Cache, stack: ResidualStack, text: Text) -> dict[str, list[States]]:
    """For each way of choosing without refinement, its state at each of the budgets."""
    ways: dict[str, list[States]] = {}
    tokens = text.calibration.rows(SEARCH_ROWS, SEQ_LEN)
    for curvature in CURVATURES:
        label = f"{curvature}, ground state" + " (published)" * (curvature == "fisher")
        ways[label] = [lowest(_problem(curvature, m), 1).states[0] for m in BUDGETS]
    for curvature in ("fisher", "ablation"):
        label = f"{curvature}, {SEARCH['candidates']} lowest re-ranked"
        ways[label] = []
        for budget in BUDGETS:
            problem = _problem(curvature, budget)

            def best(p: BlockRemovalProblem = problem) -> list[int]:
                found = select(stack, p, tokens, candidates=SEARCH["candidates"])
                return p.state_of(found.best.removed).tolist()

            ways[label].append(np.array(cache.get(f"{label} {budget}", best), dtype=np.int8))
    return ways


def _problem(curvature: str, budget: int, drop: Sequence[str] = ()) -> BlockRemovalProblem:
    return BlockRemovalProblem(load_sensitivity(f"{NAME}-{curvature}"), remove=budget, drop=drop)


def report(
    final: Judge,
    many: Judge,
    text: Text,
    ways: dict[str, list[States]],
    refined: dict[int, Sensitivity],
    each: int,
) -> str:
    """The section as markdown."""
    intact = final.losses(np.zeros((1, len(final.stack)), dtype=np.int8))[0]
    heads = " | ".join(f"M = {budget}" for budget in BUDGETS)
    line = "|---|" + "---|" * len(BUDGETS)
    rows = {way: final.rows(np.array(found)) for way, found in ways.items()}
    perplexities = {way: np.exp(values.mean(axis=1)) for way, values in rows.items()}
    best = np.min(list(perplexities.values()), axis=0)
    out = [
        "## selection",
        "",
        f"`python benchmarks/selection.py MODEL`: SmolLM2-135M-Instruct (Q4_1 GGUF, float32), "
        f"{text.source}. Chosen on {SEARCH_ROWS} rows of {SEQ_LEN} tokens of its calibration "
        f"part; `select` measures {SEARCH['random']} random and {SEARCH['rounds']} x "
        f"{SEARCH['candidates']} low states on {SEARCH_ROWS} rows and the best "
        f"{SEARCH['finalists']} on {FINAL_ROWS}, beside the choices of the cheap baselines. "
        f"Judged on {len(final.tokens)} held-out rows; "
        f"perplexity of the intact model there {np.exp(intact):.2f}.",
        "",
        "Perplexity by the number of removed blocks (best of each column in bold):",
        "",
        f"| chosen by | {heads} |",
        line,
    ]
    for way, values in perplexities.items():
        cells = [
            f"**{v:.4g}**" if v == b else f"{v:.4g}" for v, b in zip(values, best, strict=True)
        ]
        out.append(f"| {way} | " + " | ".join(cells) + " |")
    out += [
        "",
        f"Loss less that of {SELECTED}, nats per token, on the same rows of text, with 95 % "
        "intervals over the rows:",
        "",
        f"| chosen by | {heads} |",
        line,
    ]
    for way, values in rows.items():
        if way != SELECTED:
            pairs = zip(values, rows[SELECTED], strict=True)
            out.append(f"| {way} | " + " | ".join(difference(*pair) for pair in pairs) + " |")
    out += ["", "The blocks:", "", f"| chosen by | {heads} |", line]
    for way, found in ways.items():
        cells = [" ".join(map(str, np.flatnonzero(state))) for state in found]
        out.append(f"| {way} | " + " | ".join(cells) + " |")
    out += [
        "",
        f"Spearman correlation of energy and measured loss on {len(many.tokens)} held-out rows, "
        f"with 95 % bootstrap intervals; the states are the {each} lowest of each curvature and "
        f"{each} random ones spread over each one's spectrum, the same for all rows. The refined "
        f"energy has learnt from {REFINE['random']} other random states and the "
        f"{REFINE['candidates']} lowest, measured on {SEARCH_ROWS} rows of the calibration part:",
        "",
        "| energy | M | all | lowest | random |",
        "|---|---|---|---|---|",
    ]
    for budget in CORRELATED:
        for name, intervals in agreements(many, refined[budget], budget, each):
            out.append(f"| {name} | {budget} | " + " | ".join(map(str, intervals)) + " |")
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--text", default="builtin:python-docs")
    parser.add_argument("--heldout-rows", type=int, default=48, help="rows to judge choices on")
    parser.add_argument("--agreement-rows", type=int, default=16, help="for the correlations")
    parser.add_argument("--each", type=int, default=8, help="states for the correlations")
    parser.add_argument("--cache", type=Path, default=Path("selection-cache.json"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/RESULTS.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    loaded = load_model(options.model)
    stack = residual_stack(loaded.model)
    text = load_text(options.text, loaded.tokenizer)
    cache = Cache(options.cache, {"model": loaded.source, "text": text.source})
    judges = [
        Judge(cache, stack, text.heldout.rows(rows, SEQ_LEN))
        for rows in (options.heldout_rows, options.agreement_rows)
    ]
    ways = (
        {SELECTED: selections(cache, stack, text)}
        | chosen(cache, stack, text)
        | baselines(cache, stack, text)
    )
    refined = refinements(cache, stack, text)
    section = report(*judges, text, ways, refined, options.each)
    write_section(options.results, section)
    print(section)


if __name__ == "__main__":
    main()
