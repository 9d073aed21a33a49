"""What calibration costs, in multiples of the plain passes it is made of.

    python benchmarks/calibrate.py MODEL [--results benchmarks/RESULTS.md]

fisher: time and peak memory against a plain forward and backward pass to the input embeddings
on the same batches. ablation: time against a full pass of the model for every state.
"""

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from record import write_section

from qblock.llm import ablation, fisher
from qblock.llm.blocks import ResidualStack, residual_stack
from qblock.llm.load import load_model
from qblock.llm.text import Tokens, load_text

ROWS, SEQ_LEN, REPEATS = 8, 128, 5


def plain_backward(stack: ResidualStack, tokens: Tokens) -> None:
    """Forward and backward to the input embeddings, as transformers does it."""
    ids = torch.from_numpy(tokens.ids)
    inputs = stack.model.get_input_embeddings()(ids).requires_grad_()
    loss = stack.model(inputs_embeds=inputs, labels=ids, use_cache=False).loss
    torch.autograd.grad(loss, inputs)


def full_pass(stack: ResidualStack, tokens: Tokens, removed: list[int]) -> None:
    """The loss without some blocks, as transformers computes it."""
    ids = torch.from_numpy(tokens.ids)
    with torch.inference_mode(), stack.skipping(removed):
        stack.model(input_ids=ids, labels=ids, use_cache=False)


def cpu_seconds(work: Callable[[], object]) -> float:
    """Processor time: what a busy machine leaves unchanged."""
    started = time.process_time()
    work()
    return time.process_time() - started


def prepare(model: str, rows: int) -> tuple[ResidualStack, Tokens]:
    loaded = load_model(model)
    text = load_text("builtin:python-docs", loaded.tokenizer).calibration
    return residual_stack(loaded.model), text.rows(rows, SEQ_LEN)


def peak_memory(model: str, what: str) -> tuple[int, int]:
    """Bytes before and at the peak of one batch, in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, model, "--memory-of", what],
        check=True,
        capture_output=True,
        text=True,
    )
    before, peak = map(int, done.stdout.split()[-2:])
    return before, peak


def least_share(stack: ResidualStack) -> tuple[float, float]:
    """Shares of the multiplications of full passes that ablation cannot do without.

    Of the layers alone, and with the output embedding, which every state needs in full.
    """
    n = len(stack)
    states = n * (n + 1) // 2
    pairs = sum(j * (n - 1 - j) for j in range(n))  # pair i < j runs the layers after j
    runs = n + sum(n - 1 - i for i in range(n)) + pairs
    full = n * (n - 1) + (states - n) * (n - 2)
    layer = sum(p.numel() for p in stack.layers[0].parameters())
    head = stack.model.get_output_embeddings().weight.numel()
    return runs / full, (runs * layer + states * head) / (full * layer + states * head)


WORK = {"plain": plain_backward, "fisher": fisher.measure}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--memory-of", choices=WORK)
    parser.add_argument("--ablation-rows", type=int, default=ROWS)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/RESULTS.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    stack, tokens = prepare(options.model, ROWS)
    if options.memory_of:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        WORK[options.memory_of](stack, tokens)
        print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    times: dict[str, list[float]] = {name: [] for name in WORK}
    for _ in range(REPEATS + 1):  # in turn, so that a slow minute hits both; the first warms up
        for name, work in WORK.items():
            times[name].append(cpu_seconds(lambda w=work: w(stack, tokens)))
    plain, ours = (float(np.median(times[name][1:])) for name in WORK)
    memory = {name: peak_memory(options.model, name) for name in WORK}
    plain_peak, our_peak = (memory[name][1] for name in WORK)

    n = len(stack)
    states = n * (n + 1) // 2
    part = tokens[: options.ablation_rows]
    pairs = np.random.default_rng(0).integers(0, n, (REPEATS, 2)).tolist()
    full = float(np.median([cpu_seconds(lambda p=p: full_pass(stack, part, p)) for p in pairs]))
    measured = cpu_seconds(lambda: ablation.measure(stack, part))
    of_layers, of_all = least_share(stack)
    section = "\n".join(
        [
            "## calibration cost",
            "",
            f"`python benchmarks/calibrate.py MODEL`: {n} blocks, {SEQ_LEN} tokens a row, one "
            "thread, processor seconds, medians.",
            "",
            "| what | ours | plain | ratio |",
            "|---|---|---|---|",
            f"| fisher: a batch of {ROWS}, against forward and backward to the inputs (s) "
            f"| {ours:.2f} | {plain:.2f} | {ours / plain:.2f} |",
            f"| fisher: peak memory of the process (MB) | {our_peak / 1e6:.0f} "
            f"| {plain_peak / 1e6:.0f} | {our_peak / plain_peak:.2f} |",
            f"| ablation: {states} states, {len(part)} rows, against {states} full passes (s) "
            f"| {measured:.0f} | {states * full:.0f} | {measured / (states * full):.2f} |",
            "",
            f"Shared prefixes leave {of_layers:.2f} of the layers' multiplications. The output "
            f"embedding is needed in full for every state; with it, {of_all:.2f} are left.",
        ]
    )
    write_section(options.results, section + "\n")
    print(section)


if __name__ == "__main__":
    main()
