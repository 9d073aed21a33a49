"""Does the order of the ways of choosing blocks persist after healing?

    python benchmarks/heal_order.py MODEL [--results benchmarks/RESULTS.md]

SmolLM2-135M without 6 blocks, chosen in each of several ways; each model is pruned, judged,
healed on the same tokens by the same recipe, and judged again. Blocks are chosen, the learning
rate is chosen and models are healed on the calibration part of the text, and judged on its
held-out part. What is finished is kept in a cache file, so that an interrupted run goes on.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import Cache, difference, write_section
from scipy.stats import spearmanr

from qblock.errors import MeasurementError
from qblock.files import load_sensitivity
from qblock.llm.baselines import choose
from qblock.llm.blocks import residual_stack
from qblock.llm.heal import HealedModel, heal
from qblock.llm.load import LoadedModel, load_model
from qblock.llm.losses import removal_losses
from qblock.llm.prune import prune
from qblock.llm.recipe import Recipe
from qblock.llm.select import select
from qblock.llm.states import lowest
from qblock.llm.text import Text, Tokens, load_text
from qblock.problem import BlockRemovalProblem, FloatArray

REMOVE = 6
SEQ_LEN = 128
LOW_STATES = 3
"""The lowest states of the ablation sensitivity that are all healed: best of K."""
CANDIDATES = 20
VALIDATION_ROWS = 8
"""Rows of the calibration part that no model is healed on: they pick what has to be picked."""
RATES = (1e-4, 3e-4, 1e-3)
TRIAL = "sliding-window"
"""The removal on which the learning rate is chosen: none of those that the energy chose."""
TRIAL_ROWS = 40
AGAIN = ("ablation, state 0", "sliding-window")
"""Healed with a second seed as well, to see what the order of the rows alone does."""


@dataclass(frozen=True)
class Judged:
    """Held-out losses of one removal, a value for each row of text.

    Attributes:
        removed: names of the blocks.
        before, after: cross entropy of each row, nats per token.
        validation: held-out distillation loss at the end, on rows of the calibration part.
        seconds: of processor time for healing.
    """

    removed: list[str]
    before: list[float]
    after: list[float]
    validation: float
    seconds: float


def choices(original: LoadedModel, rows: Tokens, cache: Cache) -> dict[str, list[str]]:
    """Removed blocks of each way of choosing."""
    stack = residual_stack(original.model)
    problems = {
        curvature: BlockRemovalProblem(load_sensitivity(f"smollm2-135m-{curvature}"), remove=REMOVE)
        for curvature in ("ablation", "fisher")
    }
    ablation = problems["ablation"]
    if "choices" not in cache.known:
        low = lowest(ablation, LOW_STATES)
        found = {"ablation, state 0": low[0].removed}
        picked = select(stack, ablation, rows, candidates=CANDIDATES).best
        found[f"ablation, best of {CANDIDATES} by measured loss"] = picked.removed
        found["fisher, state 0"] = lowest(problems["fisher"], 1)[0].removed
        for name in ("block-influence", "sliding-window"):
            state = choose(name, stack, ablation, rows)
            found[name] = tuple(b for b, x in zip(stack.names, state, strict=True) if x)
        found |= {f"ablation, state {rank}": low[rank].removed for rank in range(1, LOW_STATES)}
        cache.keep({"choices": found})
    return {way: list(removed) for way, removed in cache.known["choices"].items()}


def row_losses(model: LoadedModel, tokens: Tokens) -> FloatArray:
    stack = residual_stack(model.model)
    nothing = np.zeros((1, len(stack)), dtype=np.int8)
    return np.asarray(removal_losses(stack, nothing, tokens)[0])


def healed_in(
    folder: Path, original: LoadedModel, pruned: LoadedModel, text: Text, recipe: Recipe, rows: int
) -> HealedModel:
    """Heal on the calibration part of the calibration part."""
    learn = text.calibration
    return heal(
        original,
        pruned,
        learn.calibration.rows(rows, SEQ_LEN),
        learn.heldout.rows(VALIDATION_ROWS, SEQ_LEN),
        folder / "healed",
        recipe=recipe,
        force=True,
    )


def try_rates(source: str, removed: list[str], text: Text, cache: Cache) -> dict[str, float]:
    """Distillation loss on the validation rows after a short healing at each learning rate."""
    original = load_model(source)
    tried: dict[str, float] = cache.known.get("rates", {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prune(load_model(source), removed, folder / "pruned")
        for rate in RATES:
            if f"{rate:g}" in tried:
                continue
            recipe = Recipe(learning_rate=rate, evaluate_every=TRIAL_ROWS)
            try:
                pruned = load_model(folder / "pruned")
                done = healed_in(folder, original, pruned, text, recipe, TRIAL_ROWS)
                tried[f"{rate:g}"] = done.best.loss
            except MeasurementError:  # it did not help
                tried[f"{rate:g}"] = float("inf")
            cache.keep({"rates": tried})
            print(f"learning rate {rate:g}: {tried[f'{rate:g}']:.4f}", flush=True)
    return tried


def judge(
    source: str, removed: list[str], text: Text, recipe: Recipe, rows: int, heldout: Tokens
) -> Judged:
    """Prune, judge, heal and judge again."""
    original = load_model(source)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prune(load_model(source), removed, folder / "pruned")
        pruned = load_model(folder / "pruned")
        before = row_losses(pruned, heldout)
        started = time.process_time()
        healed = healed_in(folder, original, pruned, text, recipe, rows)
        seconds = round(time.process_time() - started, 1)
        after = row_losses(load_model(healed.path), heldout)
    return Judged(removed, before.tolist(), after.tolist(), healed.best.loss, seconds)


def perplexity(losses: Sequence[float]) -> str:
    """exp(mean loss) with the 95 % interval that the rows' spread gives."""
    values = np.asarray(losses)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    low, middle, high = np.exp(values.mean() + half * np.array([-1, 0, 1]))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def picked_after_healing(ways: dict[str, list[str]], judged: dict[str, Judged]) -> str:
    """The one of the lowest ablation states that is best on the validation rows, once healed."""
    low = [way for way in ways if way.startswith("ablation, state")]
    return min(low, key=lambda way: judged[" ".join(ways[way])].validation)


def report(
    ways: dict[str, list[str]],
    runs: Sequence[dict[str, Judged]],
    known: dict[str, Any],
    text: Text,
    recipe: Recipe,
    rows: int,
) -> str:
    """The section as markdown; `runs` has the judgements of each seed by removed blocks."""
    judged = runs[0]
    reference = judged[" ".join(ways["ablation, state 0"])]
    intact = known["intact"]
    rates = ", ".join(f"{rate}: {loss:.3f}" for rate, loss in known["rates"].items())
    out = [
        "## heal_order",
        "",
        f"`python benchmarks/heal_order.py MODEL`: SmolLM2-135M-Instruct (Q4_1 GGUF, float32) "
        f"without {REMOVE} of its 30 blocks, {text.source}. Healing: all weights, {rows} x "
        f"{SEQ_LEN} tokens once, batches of {recipe.batch_size} rows, KL from the original, "
        f"learning rate {recipe.learning_rate:g}, the best of those tried on the {TRIAL} removal "
        f"with {TRIAL_ROWS} rows (distillation loss on rows of the calibration part: {rates}). "
        f"Judged on {len(intact)} x {SEQ_LEN} held-out tokens. Perplexity of the intact model "
        f"{perplexity(intact)}. Brackets and ± are 95 % intervals over the rows of text. The last "
        "two columns are nats per token relative to the ablation ground state on the same rows.",
        "",
        "| chosen by | removed | perplexity before | after | difference before | after |",
        "|---|---|---|---|---|---|",
    ]
    for way, removed in ways.items():
        item = judged[" ".join(removed)]
        cells = (
            way,
            " ".join(removed),
            perplexity(item.before),
            perplexity(item.after),
            difference(item.before, reference.before),
            difference(item.after, reference.after),
        )
        out.append("| " + " | ".join(cells) + " |")
    means = np.array([[np.mean(j.before), np.mean(j.after)] for j in judged.values()])
    rank = spearmanr(*means.T).statistic
    seconds = sum(item.seconds for item in judged.values())
    out += [
        "",
        f"Rank correlation of the losses before and after over the {len(judged)} distinct "
        f"removals: {rank:.2f}. Best of the {LOW_STATES} lowest ablation states, picked after "
        f"healing by the loss on rows of the calibration part: "
        f"{picked_after_healing(ways, judged)}. Healing took {seconds / len(judged):.0f} CPU "
        "seconds each.",
    ]
    again = [runs[1][" ".join(ways[way])] for way in AGAIN]
    once = [judged[" ".join(ways[way])] for way in AGAIN]
    moved = [np.mean(b.after) - np.mean(a.after) for a, b in zip(once, again, strict=True)]
    out += [
        "",
        "A second seed, which changes only the order of the rows, moves the loss after healing by "
        + " and ".join(f"{m:+.3f} ({way})" for m, way in zip(moved, AGAIN, strict=True))
        + " nats; the latter minus the former is then "
        f"{difference(again[1].after, again[0].after)}.",
    ]
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--text", default="builtin:python-docs")
    parser.add_argument("--rows", type=int, default=64, help="rows to heal on")
    parser.add_argument("--heldout-rows", type=int, default=48, help="rows to judge on")
    parser.add_argument("--cache", type=Path, default=Path("heal-order-cache.json"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/RESULTS.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = {name: getattr(options, name) for name in ("text", "rows", "heldout_rows")}
    cache = Cache(options.cache, settings)
    original = load_model(options.model)
    text = load_text(options.text, original.tokenizer)
    heldout = text.heldout.rows(options.heldout_rows, SEQ_LEN)
    if "intact" not in cache.known:
        cache.keep({"intact": row_losses(original, heldout).tolist()})
    ways = choices(original, text.calibration.rows(8, SEQ_LEN), cache)
    del original
    rates = try_rates(options.model, ways[TRIAL], text, cache)
    rate = float(min(rates, key=lambda name: rates[name]))
    # Judged at its end only: there is nothing to stop early in so few steps.
    recipe = Recipe(learning_rate=rate, evaluate_every=options.rows)
    runs: list[dict[str, Judged]] = []
    for seed, chosen in enumerate((tuple(ways), AGAIN)):
        done = cache.known.get(f"seed {seed}", {})
        for way in chosen:
            key = " ".join(ways[way])
            if key in done:
                continue
            one = replace(recipe, seed=seed)
            item = judge(options.model, ways[way], text, one, options.rows, heldout)
            done[key] = asdict(item)
            cache.keep({f"seed {seed}": done})
            print(
                f"{way}: {key}: {perplexity(item.before)} -> {perplexity(item.after)}", flush=True
            )
        runs.append({key: Judged(**item) for key, item in done.items()})
    section = report(ways, runs, cache.known, text, recipe, options.rows)
    write_section(options.results, section)
    print(section)


if __name__ == "__main__":
    main()
