"""Make a smaller model from a hub model, and load it with plain transformers.

    python prune_and_load.py HuggingFaceTB/SmolLM2-135M-Instruct --remove 4 --out smaller

MODEL is a hub id, a directory or a GGUF file; the text is a file, `builtin:python-docs` or
`hf:DATASET`.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from qblock import BlockRemovalProblem, QblockError
from qblock.llm.blocks import residual_stack
from qblock.llm.calibrate import calibrate
from qblock.llm.load import load_model
from qblock.llm.prune import prune
from qblock.llm.select import select
from qblock.llm.text import load_text

LOAD = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
assert not any(name.startswith("qblock") for name in sys.modules)
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
prompt = tokenizer("The file is", return_tensors="pt", return_token_type_ids=False)
written = model.generate(**prompt, max_new_tokens=12, do_sample=False)
print(f"{model.config.num_hidden_layers} layers:", repr(tokenizer.decode(written[0])))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--remove", type=int, required=True, help="how many blocks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", default="builtin:python-docs")
    parser.add_argument("--curvature", default="ablation", help="fisher for many blocks")
    parser.add_argument("--rows", type=int, default=8, help="rows of text")
    parser.add_argument("--seq-len", type=int, default=128, help="tokens in a row")
    arguments = parser.parse_args()
    try:
        loaded = load_model(arguments.model, dtype="float32", device="cpu")
        stack = residual_stack(loaded.model)
        text = load_text(
            arguments.text, loaded.tokenizer, enough=(arguments.rows, arguments.seq_len)
        )
        tokens = text.calibration.rows(arguments.rows, arguments.seq_len)
        sensitivity = calibrate(stack, tokens, curvature=arguments.curvature)
        problem = BlockRemovalProblem(sensitivity, remove=arguments.remove)
        # Low energy is a prediction; the loss of the ten lowest states is measured.
        best = select(stack, problem, tokens, candidates=10).measured[0]
        print(f"remove {' '.join(best.state.removed)}: rank {best.state.rank} by energy, ", end="")
        print(f"perplexity {best.perplexity:.2f} on the calibration text")
        pruned = prune(loaded, best.state.removed, arguments.out)
    except QblockError as error:
        raise SystemExit(str(error)) from None
    print(f"{pruned.path}: {pruned.parameters:,} of {pruned.parameters_before:,} parameters")
    subprocess.run([sys.executable, "-c", LOAD, pruned.path], check=True)


if __name__ == "__main__":
    main()
