import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="(b) From a loss to an energy")

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    import verdicts
    from matplotlib.figure import Figure
    from tiny_transformer import SEQ_LEN, train

    from qblock import BlockRemovalProblem
    from qblock.llm.calibrate import calibrate
    from qblock.llm.losses import removal_losses, token_losses
    from qblock.llm.validate import validate


@app.cell(hide_code=True)
def _():
    mo.md("""
    # (b) From a loss to an energy

    **After this lesson you can** say where the numbers in $H$ come from, check them against the
    model itself with nothing but differences, and recognise when they must not be believed.
    You need lesson (a) and the idea of a derivative ("how fast does this number change?").

    ## 1. A language model, trained while you wait

    The model below reads text byte by byte and predicts the next byte. Its *loss* is the average
    surprise at the byte that really comes, in *nats*: 0 is perfect foresight, and blind guessing
    among 256 bytes is $\\ln 256 = 5.55$. It is an ordinary transformer, only very small. Training
    shows it rows of text again and again and moves its *weights* (the numbers inside it) so that
    the loss falls.
    """)
    return


@app.cell
def _():
    layers, steps, rows = 12, 250, 16
    return layers, rows, steps


@app.cell(hide_code=True)
def _(layers, rows, steps):
    with mo.status.spinner("training the model"):
        tiny = train(layers=layers, steps=steps)
    tokens = tiny.text.rows(rows, SEQ_LEN)
    heldout = tiny.heldout.rows(rows, SEQ_LEN)
    _figure = Figure(figsize=(7, 2.4), layout="constrained")
    _axes = _figure.subplots()
    _axes.plot(tiny.losses, linewidth=1)
    _axes.axhline(np.log(256), color="0.5", linewidth=0.8, linestyle="--")
    _axes.annotate("blind guessing", (len(tiny.losses), np.log(256)), ha="right", va="bottom")
    _axes.set_ylim(0, 6.2)
    _axes.set_xlabel("training step")
    _axes.set_ylabel("loss (nats per byte)")
    mo.vstack(
        [
            _figure,
            mo.md(
                f"{len(tiny.stack)} blocks, {tiny.stack.model.num_parameters():,} weights, loss "
                f"{np.mean(tiny.losses[-10:]):.2f} at the end."
            ),
        ]
    )
    return heldout, tiny, tokens


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 2. A volume knob for every block

    Each block *adds* something to what comes from below. Put a knob on what block $i$ adds, and
    call its setting $\\alpha_i$ ("alpha"):

    - $\\alpha_i = 1$: as trained;
    - $\\alpha_i = 0$: the block adds nothing, as if it were not there;
    - anything between is a block turned down.

    Now removing blocks is no longer all or nothing. We can walk from the trained model towards the
    smaller one and watch the loss. Let $t$ be how far we have walked: the knobs of the chosen
    blocks stand at $\\alpha = 1 - t$, the others at 1. At $t = 1$ the chosen blocks are gone.

    ## 3. What a small step tells about a large one

    Turn the knobs of the chosen blocks by a tiny $t$. How does the loss react? Near $t = 0$ any
    smooth curve looks like a parabola: it has a slope there, and it bends, which is called its
    *curvature*:

    $$L(t) \\approx L_0 + (\\text{slope}) \\cdot t + \\tfrac12\\, (\\text{curvature}) \\cdot t^2 .$$

    Let $x$ say which blocks are chosen, as in lesson (a), and let $g_i$ be how fast the loss
    changes with the knob $\\alpha_i$. Then the slope is $-g \\cdot x$, short for minus the sum of
    all $g_i x_i$; a trained model has little slope left, because training would have used it. The
    curvature is $x' H x$, short for the double sum that lesson (a) called the energy $E(x)$:
    **$H$ is the table of curvatures of the
    loss in the knobs**, and one table serves all choices of blocks. So

    $$L(x) \\approx L_0 - g \\cdot x + \\tfrac12\\, x' H x .$$

    *Finite differences* measure the curvature with no theory at all: compute the loss at
    $t = -\\varepsilon$, $0$ and $+\\varepsilon$, and take
    $(L(\\varepsilon) - 2 L(0) + L(-\\varepsilon)) / \\varepsilon^2$.

    Computing all of $H$ by differences would take a run for every pair of blocks. qblock offers
    shortcuts: `fisher` (the published method: multiply the slopes of two blocks on each row of text
    and average; hardly dearer than reading the text three times) and `gauss-newton` (the part of
    the curvature that comes from the model's own predictions; it is larger and truer, and takes
    longer).
    """)
    return


@app.cell(hide_code=True)
def _(tiny, tokens):
    sensitivities = {
        curvature: calibrate(tiny.stack, tokens, curvature=curvature, batch_size=len(tokens))
        for curvature in ("fisher", "gauss-newton", "ablation")
    }

    def loss_at(alpha):
        """Mean loss with the knobs at alpha (N,)."""
        ids, mask = torch.from_numpy(tokens.ids), torch.from_numpy(tokens.mask[:, 1:])
        with torch.no_grad(), tiny.stack.couplings(torch.tensor(alpha, dtype=torch.float32)):
            logits = tiny.stack.model(input_ids=ids, use_cache=False).logits
        return float(token_losses(logits.double(), ids, mask).double().mean())

    return loss_at, sensitivities


@app.cell(hide_code=True)
def _(tiny):
    blocks = mo.ui.multiselect(
        list(tiny.stack.names), value=["2", "4"], label="blocks to turn down"
    )
    walked = mo.ui.slider(
        0.05, 1.0, 0.05, value=0.4, label="show the walk up to t", show_value=True
    )
    return blocks, walked


@app.cell(hide_code=True)
def _(blocks, loss_at, sensitivities, tiny, walked):
    direction = np.array([name in blocks.value for name in tiny.stack.names], dtype=float)
    _t = np.linspace(0, walked.value, 9)
    walk_losses = np.array([loss_at(1 - t * direction) for t in _t])
    _step = 0.1
    finite_difference = (
        loss_at(1 - _step * direction)
        - 2 * loss_at(1 + 0 * direction)
        + loss_at(1 + _step * direction)
    ) / _step**2
    slope = (loss_at(1 - _step * direction) - loss_at(1 + _step * direction)) / (2 * _step)
    curvatures = {
        name: float(direction @ sensitivities[name].H @ direction)
        for name in ("fisher", "gauss-newton")
    }
    times_smaller = np.trace(sensitivities["gauss-newton"].H) / np.trace(sensitivities["fisher"].H)
    _figure = Figure(figsize=(7, 3.2), layout="constrained")
    _axes = _figure.subplots()
    _axes.plot(_t, walk_losses, "o-", color="black", label="measured loss")
    _fine = np.linspace(0, walked.value, 50)
    for _name, _value, _style in (
        ("finite differences", finite_difference, "-"),
        ("gauss-newton", curvatures["gauss-newton"], "--"),
        ("fisher", curvatures["fisher"], ":"),
    ):
        _slope = (
            slope
            if _name == "finite differences"
            else -float((np.asarray(sensitivities[_name].g)) @ direction)
        )
        _axes.plot(
            _fine, walk_losses[0] + _slope * _fine + _value * _fine**2 / 2, _style, label=_name
        )
    _axes.set_xlabel("t: how far the knobs of the chosen blocks are turned down")
    _axes.set_ylabel("loss (nats per byte)")
    _axes.legend()
    mo.vstack(
        [
            mo.hstack([blocks, walked]),
            _figure,
            mo.md(
                "| | curvature x'Hx |\n|:---|---:|\n"
                f"| finite differences | {finite_difference:.4f} |\n"
                f"| gauss-newton | {curvatures['gauss-newton']:.4f} |\n"
                f"| fisher | {curvatures['fisher']:.4f} |\n\n"
                "`fisher` averages the slopes of all bytes of a row before it squares them, so it "
                f"comes out smaller, over all blocks some {times_smaller:.0f} times: it is in "
                "units of its own, and all that can be asked of it is the right *order* of the "
                "states (part 4).\n\n"
                "Start with a short walk, where the parabola of the finite differences must lie "
                "on the measured points, then walk to $t = 1$. The approximation was made *at* "
                "$t = 0$; how far it carries is not theory but luck, and has to be measured."
            ),
        ]
    )
    return finite_difference, slope, times_smaller, walk_losses


@app.cell(hide_code=True)
def _():
    single_answer = mo.ui.text(
        label="Which single block, removed entirely, raises the measured loss most? Its number:"
    )
    half_answer = mo.ui.radio(
        ["it doubles", "it grows fourfold", "it stays the same"],
        label="Twice the step t: what happens to the term with the curvature?",
    )
    return half_answer, single_answer


@app.cell(hide_code=True)
def _(half_answer, single_answer, tiny, tokens):
    _n = len(tiny.stack)
    _states = np.concatenate([np.zeros((1, _n), np.int8), np.eye(_n, dtype=np.int8)])
    single_losses = removal_losses(tiny.stack, _states, tokens, batch_size=len(tokens)).mean(axis=1)
    single_verdict = verdicts.number(
        single_answer.value,
        float(single_losses[1:].argmax()),
        tolerance=0,
        right=f"The loss becomes {single_losses[1:].max():.2f}, from {single_losses[0]:.2f}.",
        hint="Choose one block at a time above, walk to t = 1 and read off the last point.",
    )
    half_verdict = verdicts.choice(
        half_answer.value,
        "it grows fourfold",
        right="It goes with t². So an error of the parabola that nobody sees at t = 0.1 can rule "
        "at t = 1.",
        hint="The term is ½ · curvature · t².",
    )
    mo.vstack(
        [mo.md("### Check yourself"), single_answer, single_verdict, half_answer, half_verdict]
    )
    return half_verdict, single_losses, single_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 4. Does the energy rank models?

    We do not need the loss of a smaller model to be *predicted*. We need the energies to come in
    the same *order* as the losses, so that the lowest energy is a good model. That can be tested:
    remove different sets for real, measure the loss on text that was used for nothing else, and
    compare the two orders. *Spearman's correlation* is 1 if the orders are the same, 0 if they
    have nothing to do with each other, and -1 if one is the other reversed.

    `ablation` is the third way to $H$, with no small steps at all: remove every block and every
    pair of blocks, measure, and choose $H$ so that $x'Hx$ is the measured rise for all of these.
    """)
    return


@app.cell(hide_code=True)
def _(layers):
    remove = mo.ui.slider(2, layers // 2, 1, value=4, label="blocks to remove, M", show_value=True)
    return (remove,)


@app.cell(hide_code=True)
def _(heldout, remove, sensitivities, tiny):
    validations = {
        name: validate(
            tiny.stack,
            BlockRemovalProblem(sensitivity, remove=remove.value),
            heldout,
            states=40,
            batch_size=len(heldout),
        )
        for name, sensitivity in sensitivities.items()
    }
    _figure = Figure(figsize=(8.5, 2.9), layout="constrained")
    for _axes, (_name, _v) in zip(
        _figure.subplots(1, 3, sharey=True), validations.items(), strict=True
    ):
        _low = slice(_v.num_lowest)
        _axes.scatter(_v.energies[_low], _v.losses[_low], s=18, color="#0072B2", label="lowest")
        _axes.scatter(
            _v.energies[_v.random], _v.losses[_v.random], s=18, marker="x", color="#D55E00",
            label="random",
        )  # fmt: skip
        _axes.axhline(_v.intact, color="0.6", linewidth=0.8)
        _axes.set_title(f"{_name}\nSpearman {_v.agreement('spearman').value:.2f}", fontsize=10)
        _axes.set_xlabel("energy")
    _figure.axes[0].set_ylabel("measured loss")
    _figure.axes[0].legend(fontsize=8)
    mo.vstack(
        [
            remove,
            _figure,
            mo.md(
                "\n".join(
                    f"- **{name}**: Spearman {v.agreement('spearman')}. {v.verdict}"
                    for name, v in validations.items()
                )
                + "\n\nThe brackets are 95 % intervals. The grey line is the intact model."
            ),
        ]
    )
    return (validations,)


@app.cell(hide_code=True)
def _():
    order_answer = mo.ui.radio(
        ["fisher", "gauss-newton", "ablation"],
        label="With the slider where it is: which table has the highest Spearman correlation?",
    )
    return (order_answer,)


@app.cell(hide_code=True)
def _(order_answer, validations):
    _values = {name: v.agreement("spearman").value for name, v in validations.items()}
    order_verdict = verdicts.choice(
        order_answer.value,
        max(_values, key=_values.__getitem__),
        right="Now look at the intervals: is the difference to the next more than chance?",
        hint="Read the titles of the three pictures.",
    )
    mo.vstack([mo.md("### Check yourself"), order_answer, order_verdict])
    return (order_verdict,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What to take away

    - $H$ is the curvature of the loss in the knobs; the energy $x'Hx$ stands for the rise of the
      loss. It is exact for small steps and a guess for removal, which is a large one.
    - The guess is tested by measuring: `qblock validate` does on your model what part 4 does here.
    - On a small model the published estimate can be a poor guess when many blocks go; a table
      measured with every knob fully on or off (`ablation`) is better, as long as there are few
      blocks.

    ## Exercises

    1. Find two blocks whose measured loss at $t = 1$ is far above the parabola of the finite
       differences, and two for which it lies below.
    2. The first block of a model is special. Walk it down alone. What does the slope at $t = 0$
       say, and what happens later? Why can "the gradient is nearly zero" not be the whole truth?
    3. Change `steps` to 20 in the code (`marimo edit`) and run again. Is $g$ still small? What does
       that do to the ranking of a sensitivity that drops it?
    4. Draw M = 2 and the largest M for `ablation`. Why must it be perfect for M = 2 on the text it
       was measured on, and why is it not quite perfect here?

    Solvers of lesson (a) could obey the budget; many machines cannot. Lesson (c) is about them.
    """)
    return


if __name__ == "__main__":
    app.run()
