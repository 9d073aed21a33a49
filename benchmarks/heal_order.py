"""Does the order of the ways of choosing blocks persist after healing?

    python benchmarks/heal_order.py MODEL [--results benchmarks/RESULTS.md]

SmolLM2-135M without 6 blocks, chosen in each of several ways; each model is pruned, judged,
healed on the same tokens by the same recipe, and judged again. Blocks are chosen and models
healed on the calibration part of the text, and judged on its held-out part. What is finished is
kept in a cache file, so that an interrupted run goes on.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from selection import write_section

from qblock.files import atomic_write, load_sensitivity
from qblock.llm.baselines import choose
from qblock.llm.blocks import residual_stack
from qblock.llm.heal import Recipe, heal
from qblock.llm.load import LoadedModel, load_model
from qblock.llm.losses import removal_losses
from qblock.llm.prune import prune
from qblock.llm.select import select
from qblock.llm.states import lowest
from qblock.llm.text import Text, Tokens, load_text
from qblock.problem import BlockRemovalProblem, FloatArray

REMOVE = 6
SEQ_LEN = 128
LOW_STATES = 3
"""The lowest states of the ablation sensitivity that are all healed: best of K."""
CANDIDATES = 20


@dataclass(frozen=True)
class Judged:
    """Held-out losses of one removal, a value for each row of text.

    Attributes:
        removed: names of the blocks.
        before, after: cross entropy of each row, nats per token.
        validation: held-out distillation loss at the end, on rows of the calibration part.
        seconds: of healing.
    """

    removed: list[str]
    before: list[float]
    after: list[float]
    validation: float
    seconds: float


class Cache:
    """Choices and judgements of finished parts, in a JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = json.loads(path.read_text()) if path.exists() else {}

    def keep(self, key: str, value: object) -> None:
        self.known[key] = value
        with atomic_write(self.path) as stream:
            stream.write(json.dumps(self.known).encode())


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
        cache.keep("choices", found)
    return {way: list(removed) for way, removed in cache.known["choices"].items()}


def row_losses(model: LoadedModel, tokens: Tokens) -> FloatArray:
    stack = residual_stack(model.model)
    nothing = np.zeros((1, len(stack)), dtype=np.int8)
    return np.asarray(removal_losses(stack, nothing, tokens)[0])


def judge(
    source: str, removed: list[str], text: Text, recipe: Recipe, rows: int, heldout: Tokens
) -> Judged:
    """Prune, judge, heal and judge again."""
    learn = text.calibration
    original = load_model(source)
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "pruned"
        prune(load_model(source), removed, small)
        pruned = load_model(small)
        before = row_losses(pruned, heldout)
        healed = heal(
            original,
            pruned,
            learn.calibration.rows(rows, SEQ_LEN),
            learn.heldout.rows(8, SEQ_LEN),
            Path(folder) / "healed",
            recipe=recipe,
        )
        after = row_losses(load_model(healed.path), heldout)
    return Judged(
        removed, before.tolist(), after.tolist(), healed.best.loss, round(healed.seconds, 1)
    )


def perplexity(losses: Sequence[float]) -> str:
    """exp(mean loss) with the 95 % interval that the rows' spread gives."""
    values = np.asarray(losses)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    low, middle, high = np.exp(values.mean() + half * np.array([-1, 0, 1]))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def difference(losses: Sequence[float], reference: Sequence[float]) -> str:
    """Mean paired difference in nats with its 95 % interval."""
    values = np.asarray(losses) - np.asarray(reference)
    if not values.any():
        return "-"
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():+.3f} ± {half:.3f}"


def report(
    ways: dict[str, list[str]],
    judged: dict[str, Judged],
    intact: Sequence[float],
    text: Text,
    recipe: Recipe,
    rows: int,
) -> str:
    """The section as markdown."""
    reference = judged[" ".join(ways["ablation, state 0"])]
    trained = f"low-rank updates of rank {recipe.lora}" if recipe.lora else "all weights"
    out = [
        "## heal_order",
        "",
        f"`python benchmarks/heal_order.py MODEL`: SmolLM2-135M-Instruct (Q4_1 GGUF, float32) "
        f"without {REMOVE} of its 30 blocks, {text.source}. Healing: {trained}, {rows} x {SEQ_LEN} "
        f"tokens seen {recipe.epochs:g} times, batches of {recipe.batch_size} rows, learning rate "
        f"{recipe.learning_rate:g}, KL from the original at temperature {recipe.temperature:g}, "
        f"seed {recipe.seed}; one run each. Judged on {len(intact)} x {SEQ_LEN} held-out tokens. "
        f"Perplexity of the intact model {perplexity(intact)}. Brackets and ± are 95 % intervals "
        "over the rows of text; they say nothing of other seeds. The last two columns are nats "
        "per token relative to the ablation ground state on the same rows.",
        "",
        "| chosen by | removed | perplexity before | after | difference before | after |",
        "|---|---|---|---|---|---|",
    ]
    for way, removed in ways.items():
        if " ".join(removed) not in judged:
            continue
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
    low = [way for way in ways if way.startswith("ablation, state")]
    low = [way for way in low if " ".join(ways[way]) in judged]
    picked = min(low, key=lambda way: judged[" ".join(ways[way])].validation)
    seconds = sum(item.seconds for item in judged.values())
    out += [
        "",
        f"Best of the {len(low)} lowest ablation states after healing, picked by distillation loss "
        f"on rows of the calibration part: {picked}. All {len(judged)} distinct removals were "
        f"healed in {seconds / 60:.0f} minutes on one thread.",
    ]
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--text", default="builtin:python-docs")
    parser.add_argument("--rows", type=int, default=96, help="rows to heal on")
    parser.add_argument("--heldout-rows", type=int, default=48, help="rows to judge on")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--lora", type=int, default=0, help="rank; all weights if 0")
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--evaluate-every", type=int, default=24)
    parser.add_argument("--only", help="heal this way of choosing only")
    parser.add_argument("--cache", type=Path, default=Path("heal-order-cache.json"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/RESULTS.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    cache = Cache(options.cache)
    original = load_model(options.model)
    text = load_text(options.text, original.tokenizer)
    heldout = text.heldout.rows(options.heldout_rows, SEQ_LEN)
    recipe = Recipe(
        epochs=options.epochs,
        lora=options.lora,
        learning_rate=options.learning_rate,
        evaluate_every=options.evaluate_every,
    )
    if "intact" not in cache.known:
        cache.keep("intact", row_losses(original, heldout).tolist())
    ways = choices(original, text.calibration.rows(8, SEQ_LEN), cache)
    del original
    for way, removed in ways.items():
        key = " ".join(removed)
        if key in cache.known or (options.only and way != options.only):
            continue
        started = time.perf_counter()
        item = judge(options.model, removed, text, recipe, options.rows, heldout)
        cache.keep(key, item.__dict__)
        print(
            f"{way}: {key}: {perplexity(item.before)} -> {perplexity(item.after)} "
            f"({time.perf_counter() - started:.0f} s)",
            flush=True,
        )
    judged = {
        " ".join(r): Judged(**cache.known[" ".join(r)])
        for r in ways.values()
        if " ".join(r) in cache.known
    }
    section = report(ways, judged, cache.known["intact"], text, recipe, options.rows)
    write_section(options.results, section)
    print(section)


if __name__ == "__main__":
    main()
