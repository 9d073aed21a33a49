import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="(f) The spectrum")

with app.setup:
    import marimo as mo
    import numpy as np
    import verdicts
    from matplotlib.figure import Figure
    from tiny_transformer import SEQ_LEN, train

    from qblock import BlockRemovalProblem, Spectrum
    from qblock.llm.calibrate import calibrate
    from qblock.llm.losses import removal_losses
    from qblock.llm.select import select
    from qblock.llm.states import lowest
    from qblock.llm.validate import rank_agreement
    from qblock.maps import removal_map


@app.cell(hide_code=True)
def _():
    mo.md("""
    # (f) The spectrum: why the 17th state can be the best model

    **After this lesson you can** read a spectrum and a block-removal map, say why the state of
    lowest energy need not be the best model, and find a better one for the price of a few
    measurements. You need lessons (a) and (b).

    The authors of the method report that their best model with 16 of 32 blocks removed was not the
    ground state but the *17th excited state*: seventeen other choices have a lower energy. Is
    that an accident, or to be expected? We have a model small enough to find out: here **every**
    possible smaller model can be built and measured.

    ## 1. All states, in order

    The model is the one of lesson (b): twelve blocks, trained while you wait.
    """)
    return


@app.cell
def _():
    layers, steps, rows = 12, 250, 16
    return layers, rows, steps


@app.cell(hide_code=True)
def _(layers, rows, steps):
    with mo.status.spinner("training the model, then measuring how its blocks interact"):
        tiny = train(layers=layers, steps=steps)
        tokens = tiny.text.rows(rows, SEQ_LEN)
        heldout = tiny.heldout.rows(3 * rows, SEQ_LEN)
        sensitivities = {
            curvature: calibrate(tiny.stack, tokens, curvature=curvature, batch_size=rows)
            for curvature in ("fisher", "gauss-newton", "ablation")
        }
    return heldout, sensitivities, tiny, tokens


@app.cell(hide_code=True)
def _():
    mo.md("""
    The **spectrum** is the list of all states that keep the budget, sorted by energy. State 0 is
    the ground state; the others are called **excited states**, number 1 the first of them, and so
    on. The number of a state in this list is its *rank*.

    The picture is a **block-removal map**: a row for each state, the lowest at the top; a column
    for each block; a removed block is filled. The bars on the right are the energies above the
    ground state.
    """)
    return


@app.cell(hide_code=True)
def _():
    remove = mo.ui.slider(3, 5, 1, value=4, label="blocks to remove, M", show_value=True)
    curvature = mo.ui.dropdown(
        ["fisher", "gauss-newton", "ablation"], value="fisher", label="energies from"
    )
    return curvature, remove


@app.cell(hide_code=True)
def _(curvature, remove, sensitivities):
    SHOWN = 40
    problem = BlockRemovalProblem(sensitivities[curvature.value], remove=remove.value)
    spectrum = lowest(problem, problem.reduced.num_feasible)
    _map = removal_map([spectrum], top=SHOWN)
    _map.axes[0].set_title(f"the {SHOWN} lowest of {len(spectrum)} states")
    mo.vstack(
        [
            mo.hstack([remove, curvature], justify="start", gap=2),
            _map,
            mo.md(
                "Rows that follow each other often differ in one block only: near every good "
                "choice there are others nearly as good. That no state is missing from the list "
                f"is {'proved' if spectrum.certificate.proved else 'not proved'} by the solver "
                "`exact`."
            ),
        ]
    )
    return SHOWN, problem, spectrum


@app.cell(hide_code=True)
def _():
    shared_answer = mo.ui.text(
        label="How many of the blocks that the ground state removes does state 1 remove too?"
    )
    return (shared_answer,)


@app.cell(hide_code=True)
def _(shared_answer, spectrum):
    shared_verdict = verdicts.number(
        shared_answer.value,
        float(spectrum.states[0] @ spectrum.states[1]),
        tolerance=0,
        right=f"The ground state removes {' '.join(spectrum[0].removed)}, state 1 removes "
        f"{' '.join(spectrum[1].removed)}.",
        hint="Compare the first two rows of the map.",
    )
    mo.vstack([mo.md("### Check yourself"), shared_answer, shared_verdict])
    return (shared_verdict,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 2. The truth

    Energy is a prediction (lesson (b)). Now every one of these models is really run, and its loss
    measured. Left: all of them. Right: the lowest of the spectrum, one by one; the thing to look
    for is the lowest point.
    """)
    return


@app.cell(hide_code=True)
def _(remove, rows, sensitivities, tiny, tokens):
    _any = BlockRemovalProblem(sensitivities["fisher"], remove=remove.value)
    _states = lowest(_any, _any.reduced.num_feasible).states
    with mo.status.spinner(f"running {len(_states)} models"):
        _losses = removal_losses(tiny.stack, _states, tokens, batch_size=rows).mean(axis=1)
    loss_of = {state.tobytes(): float(loss) for state, loss in zip(_states, _losses, strict=True)}
    return (loss_of,)


@app.cell(hide_code=True)
def _(SHOWN, loss_of, spectrum):
    losses = np.array([loss_of[state.tobytes()] for state in spectrum.states])
    best_rank = int(losses.argmin())
    over_all = rank_agreement(spectrum.energies, losses, "spearman").value
    over_low = rank_agreement(spectrum.energies[:SHOWN], losses[:SHOWN], "spearman").value
    _figure = Figure(figsize=(9, 3.8), layout="constrained")
    _all, _low = _figure.subplots(1, 2)
    _all.scatter(spectrum.energies, losses, s=8, color="0.6", label="all models")
    _all.scatter(
        spectrum.energies[:SHOWN], losses[:SHOWN], s=8, color="#0072B2",
        label=f"the {SHOWN} of lowest energy",
    )  # fmt: skip
    _all.set(xlabel="energy", ylabel="measured loss (nats per byte)")
    _all.locator_params(axis="x", nbins=4)
    _low.plot(losses[:SHOWN], "o", color="#0072B2", markersize=4)
    for _axes, _x, _y in (
        (_all, spectrum.energies[[0, best_rank]], losses[[0, best_rank]]),
        (_low, np.array([0, best_rank]), losses[[0, best_rank]]),
    ):
        _axes.scatter(_x[0], _y[0], s=90, marker="s", facecolor="none", edgecolor="#D55E00",
                      linewidth=1.5, label="ground state")  # fmt: skip
        _axes.scatter(_x[1], _y[1], s=120, marker="*", color="#009E73", label="best model")
    _low.set(xlabel="rank in the spectrum")
    _low.axhline(losses[0], color="#D55E00", linewidth=0.8)
    _all.legend(fontsize=8)
    mo.vstack(
        [
            _figure,
            mo.md(
                f"Over all {len(losses)} models, energy and loss agree well: Spearman's "
                f"correlation is **{over_all:.2f}**. Among the {SHOWN} lowest it is "
                f"**{over_low:.2f}**. {int((losses < losses[0]).sum())} models are better than "
                "the ground state."
            ),
        ]
    )
    return best_rank, losses, over_all, over_low


@app.cell(hide_code=True)
def _():
    rank_answer = mo.ui.text(label="With the controls where they are: the rank of the best model?")
    agree_answer = mo.ui.radio(
        [
            "the energies of the lowest states were computed wrongly",
            "they differ so little in energy that the error of the prediction decides",
            "low states are more similar to each other, so they all have the same loss",
        ],
        label="Why is the agreement worse among the lowest states than over all?",
    )
    return agree_answer, rank_answer


@app.cell(hide_code=True)
def _(agree_answer, best_rank, losses, rank_answer):
    rank_verdict = verdicts.number(
        rank_answer.value,
        float(best_rank),
        tolerance=0,
        right=f"Its loss is {losses[best_rank]:.4f}, that of the ground state {losses[0]:.4f}.",
        hint="The star in the right picture; if it is not there, make M smaller.",
    )
    agree_verdict = verdicts.choice(
        agree_answer.value,
        "they differ so little in energy that the error of the prediction decides",
        right="A bathroom scale tells a child from a grown-up, and not which of two twins is "
        "heavier. Part 3 puts numbers to it.",
        hint="Look at the left picture: how wide is the cloud, and how wide the blue part of the "
        "axis?",
    )
    mo.vstack(
        [
            mo.md("### Check yourself"),
            rank_answer, rank_verdict,
            agree_answer, agree_verdict,
        ]
    )  # fmt: skip
    return agree_verdict, rank_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 3. A lottery among the lowest

    Say that energy predicts the loss with an error, as a scale does. Draw the straight line that
    fits loss against energy best among the lowest hundred states; the typical distance of the
    points from this line is the **typical error**. Then play: take the line's prediction for every
    state, add an error drawn by chance, and see which rank wins. Two thousand such lotteries make
    the picture. The slider makes the error smaller or larger than the one that was measured.
    """)
    return


@app.cell(hide_code=True)
def _():
    error_size = mo.ui.slider(
        steps=[0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 1.5, 2], value=1,
        label="error, in units of the typical error", show_value=True,
    )  # fmt: skip
    return (error_size,)


@app.cell(hide_code=True)
def _(losses, spectrum):
    _low = slice(100)
    slope, _start = np.polyfit(spectrum.energies[_low], losses[_low], 1)
    typical_error = float(np.std(losses[_low] - (_start + slope * spectrum.energies[_low])))
    predicted = slope * (spectrum.energies - spectrum.energies[0])
    within = int((predicted <= typical_error).sum())

    def lottery(size):
        """Ranks that win 2000 lotteries with errors of this size."""
        errors = np.random.default_rng(0).standard_normal((2000, len(predicted)))
        return (predicted + size * typical_error * errors).argmin(axis=1)

    return lottery, typical_error, within


@app.cell(hide_code=True)
def _(SHOWN, best_rank, error_size, lottery, typical_error, within):
    winners = lottery(error_size.value)
    ground_wins = float((winners == 0).mean())
    _figure = Figure(figsize=(7.5, 3), layout="constrained")
    _axes = _figure.subplots()
    _axes.bar(
        range(SHOWN), np.bincount(winners, minlength=SHOWN)[:SHOWN] / len(winners), color="#56B4E9"
    )
    if best_rank < SHOWN:
        _axes.axvline(best_rank, color="#009E73", linestyle="--")
        _axes.annotate(
            " the best model, measured", (best_rank, 0.95), xycoords=("data", "axes fraction"),
            color="#009E73", va="top",
        )  # fmt: skip
    _axes.set(xlabel="rank", ylabel="share of lotteries won")
    mo.vstack(
        [
            error_size,
            _figure,
            mo.md(
                f"The typical error is {typical_error:.4f} nats per byte. **{within}** states, the "
                "ground state among them, are predicted to lie within that. "
                f"{(winners >= SHOWN).mean():.0%} of the lotteries are won by a state beyond "
                f"rank {SHOWN - 1}."
            ),
        ]
    )
    return (ground_wins,)


@app.cell(hide_code=True)
def _():
    ground_answer = mo.ui.radio(
        ["in most", "in less than half"],
        label="With the measured error (slider at 1): in how many lotteries does the ground state "
        "win?",
    )
    return (ground_answer,)


@app.cell(hide_code=True)
def _(ground_answer, ground_wins, lottery):
    _measured = float((lottery(1) == 0).mean())
    ground_verdict = verdicts.choice(
        ground_answer.value,
        "in most" if _measured > 0.5 else "in less than half",
        right=f"In {_measured:.0%}. An excited state as the best model is no accident, it is what "
        "to expect wherever states lie closer than the prediction is good.",
        hint="The bar at rank 0.",
    )
    half_verdict = verdicts.goal(
        0.5 <= ground_wins < 1,
        right=f"It wins {ground_wins:.0%}. That is how good a prediction would have to be before "
        "its ground state could be trusted.",
        hint=f"It wins {ground_wins:.0%} now.",
    )
    mo.vstack(
        [
            mo.md("### Check yourself"),
            ground_answer, ground_verdict,
            mo.md("Find an error at which the ground state wins at least half, but not all."),
            half_verdict,
        ]
    )  # fmt: skip
    return ground_verdict, half_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 4. What to do: measure the lowest few

    Nobody can measure all models of a real language model. But one need not: the good ones are
    *somewhere among the lowest*. So take the $K$ lowest states, measure these, and keep the best:
    that is the first round of `qblock select`. Here is what it finds for every $K$.

    The choice is made on the text that the loss was measured on, and whoever picks the best of
    many on one text also picks luck on that text. So the picture also shows the loss of the chosen
    model on **held-out** text, which nobody has looked at.
    """)
    return


@app.cell(hide_code=True)
def _(SHOWN, heldout, problem, rows, tiny, tokens):
    with mo.status.spinner("measuring candidates"):
        measured = select(tiny.stack, problem, tokens, candidates=SHOWN, batch_size=rows).measured
        picks = [
            next(item for item in measured if item.state.rank < count)
            for count in range(1, SHOWN + 1)
        ]
        _states = Spectrum.of_states(
            problem, np.array([problem.state_of(item.state.removed) for item in picks])
        )
        _fresh = removal_losses(tiny.stack, _states.states, heldout, batch_size=rows)
    heldout_of = {state.removed: values for state, values in zip(_states, _fresh, strict=True)}
    candidates = mo.ui.slider(1, SHOWN, 1, value=10, label="candidates K", show_value=True)
    return candidates, heldout_of, measured, picks


@app.cell(hide_code=True)
def _(SHOWN, candidates, heldout_of, losses, picks):
    _first = heldout_of[picks[0].state.removed]
    _pick = picks[candidates.value - 1]
    _gain = _first - heldout_of[_pick.state.removed]
    gain_error = float(_gain.std(ddof=1) / np.sqrt(len(_gain)))
    _figure = Figure(figsize=(8.5, 3), layout="constrained")
    for _axes, _name, _values, _colour in zip(
        _figure.subplots(1, 2),
        ("text of the choice", "held-out text"),
        (
            [item.loss for item in picks],
            [heldout_of[item.state.removed].mean() for item in picks],
        ),
        ("#0072B2", "#D55E00"),
        strict=True,
    ):
        _axes.step(range(1, SHOWN + 1), _values, where="mid", color=_colour)
        _axes.plot(candidates.value, _values[candidates.value - 1], "o", color=_colour)
        _axes.set(xlabel="candidates K", ylabel="loss of the chosen model", title=_name)
    _figure.axes[0].axhline(losses.min(), color="#009E73", linestyle="--")
    _figure.axes[0].annotate(
        "best of all models", (SHOWN, losses.min()), ha="right", va="bottom", color="#009E73"
    )
    _figure.axes[0].margins(y=0.12)
    mo.vstack(
        [
            candidates,
            _figure,
            mo.md(
                f"With K = {candidates.value}, state **{_pick.state.rank}** is chosen: it "
                f"removes {' '.join(_pick.state.removed)}. Against the ground state its held-out "
                f"loss is lower by **{_gain.mean():.4f} ± {gain_error:.4f}** (the error of a mean "
                f"over {len(_gain)} rows of text). Models measured: {candidates.value} in place "
                f"of {len(losses)}."
            ),
        ]
    )
    return


@app.cell(hide_code=True)
def _():
    enough_answer = mo.ui.text(
        label="What is the smallest K with which the best of these 40 candidates is found?"
    )
    return (enough_answer,)


@app.cell(hide_code=True)
def _(enough_answer, measured):
    enough_verdict = verdicts.number(
        enough_answer.value,
        float(measured[0].state.rank + 1),
        tolerance=0,
        right="Its rank plus one, since ranks count from 0.",
        hint="Where does the left staircase reach its lowest step?",
    )
    mo.vstack([mo.md("### Check yourself"), enough_answer, enough_verdict])
    return (enough_verdict,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What to take away

    - The ground state is the best *prediction*, not the best model. Where many states lie within
      the error of the prediction, the best model is one of those, and which one is chance.
    - That is why qblock proves the low *spectrum* and not only the optimum, and why a solver that
      returns one state, even the right one, returns too little.
    - Measuring a few tens of candidates costs little and gains a lot. Say on which text you chose.

    ## Exercises

    1. Take `ablation` in place of `fisher`. Which rank is the best model now, and how many states
       lie within the typical error? (It costs more: lesson (b).)
    2. In the left picture of part 2 a second cloud hangs high above the first. Which block do all
       of its models lack? (Lesson (b), part 3, has a hint.)
    3. Go from M = 3 to M = 5. What happens to the number of states, to the typical error, and to
       the rank of the best model?
    4. Change `rows` to 4 in the code (`marimo edit`). How much does the held-out loss of the
       chosen model suffer from choosing on so little text?
    5. `select(..., rounds=2)` corrects H by what was measured and solves again (`qblock select`
       makes three such rounds). Does it find the best of all models with fewer measurements?
    6. On a real model: `qblock select MODEL h.npz --remove 8 --text SOURCE`.

    Energies are judged now. Solvers are judged in lesson (g).
    """)
    return


if __name__ == "__main__":
    app.run()
