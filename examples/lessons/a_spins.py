import marimo

__generated_with = "0.25.2"

app = marimo.App(width="medium", app_title="(a) Spins, fields, couplings")

with app.setup:
    import itertools
    import math

    import dimod
    import marimo as mo
    import numpy as np
    import verdicts
    from matplotlib.figure import Figure

    from qblock import BlockRemovalProblem, Sensitivity, get_backend, load_sensitivity


@app.cell(hide_code=True)
def _():
    mo.md("""
    # (a) Spins, fields, couplings: three blocks by hand

    **After this lesson you can** compute the energy of any choice of blocks by hand, say why the
    two cheapest blocks need not be the cheapest pair, and translate between the language of
    machine learning ("remove this block") and the language of physics ("this spin points up").
    You need Python and school arithmetic. Every word of physics is explained when it first comes.

    ## 1. The question

    A language model is a stack of *blocks*. Text goes in at the bottom, every block adds its bit
    to what the blocks below have made of it, and a prediction comes out at the top. How bad the
    predictions are is measured by one number, the *loss*: **smaller is better**.

    Some blocks add little. If we throw them away the model is smaller and faster, and the loss
    rises a little. Which ones should go?

    Take a toy model of three blocks, **A**, **B** and **C**. Say that somebody has measured:

    - what it costs to remove one block alone: 1.0 for A, 1.5 for B, 2.0 for C;
    - what happens *on top of that* when two go together. A and B do nearly the same job, so each
      can stand in for the other; without both nobody does the job, and removing the pair costs
      2.0 more than 1.0 + 1.5. A and C happen to make opposite mistakes; without both, 0.6 is
      saved. B and C have 0.4 extra.

    We write all of this as one table of numbers, called $H$. On its diagonal are the single
    costs. Beside the diagonal, *half* of each extra cost is written twice, once in the row of
    the first block and once in the row of the second. (Half, because it is counted twice below.)

    | $H$ | A | B | C |
    |:---|---:|---:|---:|
    | **A** | 1.0 | 1.0 | -0.3 |
    | **B** | 1.0 | 1.5 | 0.2 |
    | **C** | -0.3 | 0.2 | 2.0 |

    The entry in row A and column C is written $H_{AC}$; here it is -0.3.
    """)
    return


@app.cell(hide_code=True)
def _():
    START = np.array([[1.0, 1.0, -0.3], [1.0, 1.5, 0.2], [-0.3, 0.2, 2.0]])
    NAMES = ("A", "B", "C")
    STATES = np.array(list(itertools.product((0, 1), repeat=3)), dtype=np.int8)

    def label(state):
        """What a 0/1 state removes, in letters."""
        return "".join(name for name, x in zip(NAMES, state, strict=True) if x) or "nothing"

    return NAMES, START, STATES, label


@app.cell(hide_code=True)
def _(START):
    sliders = mo.ui.dictionary(
        {
            f"H_{row}{column}": mo.ui.slider(
                -2.0, 3.0, 0.05, value=float(START[i, j]), label=f"H {row}{column}", show_value=True
            )
            for (i, row), (j, column) in itertools.combinations_with_replacement(
                enumerate("ABC"), 2
            )
        }
    )
    budget = mo.ui.slider(0, 3, 1, value=2, label="blocks to remove, M", show_value=True)
    return budget, sliders


@app.cell(hide_code=True)
def _(NAMES, budget, sliders):
    H = np.zeros((3, 3))
    for (_i, _row), (_j, _column) in itertools.combinations_with_replacement(enumerate(NAMES), 2):
        H[_i, _j] = H[_j, _i] = sliders.value[f"H_{_row}{_column}"]
    problem = BlockRemovalProblem(
        Sensitivity(H=H, blocks=NAMES, name="by hand"), remove=budget.value
    )
    return (problem,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 2. A state and its energy

    A *state* says of every block whether it stays (0) or goes (1). We write it as $x$: the state
    $x = (1, 0, 1)$ removes A and C and keeps B. Three blocks with two possibilities each make
    $2 \\times 2 \\times 2 = 8$ states.

    The cost of a state is called its **energy**. The word comes from physics, where things roll
    downhill until their energy is least; here it means nothing but "the number to make small".
    It adds up every entry of the table $H$ whose row *and* column belong to removed blocks
    (the sign $\\sum$ means "add up for all"; an entry with $x_i = 0$ or $x_j = 0$ drops out):

    $$E(x) = \\sum_i \\sum_j H_{ij}\\, x_i\\, x_j .$$

    So the energy of removing A and C is
    $H_{AA} + H_{CC} + H_{AC} + H_{CA} = 1.0 + 2.0 - 0.3 - 0.3 = 2.4$.

    If we want to remove exactly $M$ blocks, only some of the eight states are allowed. They are
    called **feasible**, and $M$ is the **budget**. The best feasible state is the **ground
    state** (the state on the ground: nothing allowed lies lower).

    Move the sliders. Bars in colour are feasible, the darkest is the ground state.
    """)
    return


@app.cell(hide_code=True)
def _(STATES, budget, label, problem, sliders):
    energies = problem.energy(STATES)
    feasible = problem.is_feasible(STATES)
    ground = int(np.where(feasible, energies, np.inf).argmin())
    _figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    _axes = _figure.subplots()
    _colours = np.where(feasible, "#56B4E9", "#D9D9D9")
    _colours[ground] = "#0072B2"
    _bars = _axes.bar([label(s) for s in STATES], energies, color=_colours)
    _axes.bar_label(_bars, fmt="%.2f", padding=2, fontsize=8)
    _axes.axhline(0, color="0.4", linewidth=0.8)
    _axes.margins(y=0.15)
    _axes.set_xlabel("removed blocks")
    _axes.set_ylabel("energy E(x)")
    _axes.set_title(f"M = {budget.value}: the ground state removes {label(STATES[ground])}")
    _axes.spines[["top", "right"]].set_visible(False)
    _left = mo.vstack([budget, *sliders.values()])
    mo.hstack([_left, _figure], widths=[1, 2.4], align="center")
    return energies, feasible, ground


@app.cell(hide_code=True)
def _():
    energy_answer = mo.ui.text(label="Energy of removing A and B, with the numbers of part 1:")
    pair_answer = mo.ui.radio(
        ["A and B", "A and C", "B and C"], label="Which pair is the ground state for M = 2 there?"
    )
    tie_answer = mo.ui.text(
        label="Raise H AC from -0.3, all else as in part 1. At which value does another pair "
        "become as good?"
    )
    return energy_answer, pair_answer, tie_answer


@app.cell(hide_code=True)
def _(NAMES, START, energy_answer, pair_answer, tie_answer):
    _start = BlockRemovalProblem(Sensitivity(H=START, blocks=NAMES), remove=2)
    _energy = {
        pair: float(_start.energy(_start.state_of(pair))[0])
        for pair in itertools.combinations(NAMES, 2)
    }
    _best = min(_energy, key=_energy.__getitem__)
    _second = min(value for pair, value in _energy.items() if pair != ("A", "C"))
    energy_verdict = verdicts.number(
        energy_answer.value,
        _energy["A", "B"],
        right="1.0 + 1.5 for the blocks and 1.0 + 1.0 for the pair.",
        hint="Add four entries of H: two on the diagonal, and the one beside it twice.",
    )
    pair_verdict = verdicts.choice(
        pair_answer.value,
        " and ".join(_best),
        right="A and B are the two cheapest blocks and the most expensive pair. Choosing one "
        "block at a time cannot see that.",
        hint="Compute all three energies; each takes four entries of H.",
    )
    tie_verdict = verdicts.number(
        tie_answer.value,
        (_second - START[0, 0] - START[2, 2]) / 2,
        right="1 + 2 + 2 H_AC = 3.9, the energy of B and C.",
        hint="The next best pair has the energy 3.9. For which H_AC is 1 + 2 + 2 H_AC as much? "
        "You can also try it with the slider.",
    )
    mo.vstack(
        [
            mo.md("### Check yourself"),
            energy_answer, energy_verdict,
            pair_answer, pair_verdict,
            tie_answer, tie_verdict,
        ]
    )  # fmt: skip
    return energy_verdict, pair_verdict, tie_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 3. The same in spins

    Physicists met this kind of sum a hundred years ago, in magnets. A magnet is made of tiny
    needles, each of which points up or down. Such a needle is called a **spin** and written
    $s = +1$ (up) or $s = -1$ (down). Our dictionary is

    $$s_i = 2 x_i - 1: \\qquad \\text{removed} \\leftrightarrow \\text{up}\\ (+1), \\qquad
    \\text{kept} \\leftrightarrow \\text{down}\\ (-1).$$

    Put $x_i = (1 + s_i)/2$ into $E(x)$ and multiply out. What you get always has this form
    ($i<j$ means that every pair is counted once):

    $$E(s) = \\text{constant} + \\sum_i h_i\\, s_i + \\sum_{i<j} J_{ij}\\, s_i\\, s_j .$$

    - $h_i$ is called a **field**: it pulls on one spin. Positive $h_i$ makes *down* cheaper
      (keep this block).
    - $J_{ij}$ is called a **coupling**: it acts between two spins. If $J_{ij}$ is positive, the
      energy is lower when the two spins are *opposite*; if it is negative, when they are *equal*.

    An energy of fields and couplings between spins is an **Ising model**. Annealers and many
    other machines are built to make such an energy small; that is the only reason why we
    translate. Nothing is lost: below, the eight energies are computed in both languages.
    """)
    return


@app.cell(hide_code=True)
def _():
    chosen = mo.ui.slider(0, 7, 1, value=5, label="row of the table, from 0", show_value=True)
    return (chosen,)


@app.cell(hide_code=True)
def _(NAMES, STATES, chosen, label, problem):
    model = dimod.BinaryQuadraticModel(problem.Q, "BINARY")
    h, J, constant = model.relabel_variables(dict(enumerate(NAMES)), inplace=False).to_ising()
    spins = 2 * STATES.astype(float) - 1
    ising_energies = np.array(
        [
            constant
            + sum(h[name] * s[i] for i, name in enumerate(NAMES))
            + sum(
                value * s[NAMES.index(one)] * s[NAMES.index(other)]
                for (one, other), value in J.items()
            )
            for s in spins
        ]
    )
    ising_energies = ising_energies.round(9) + 0.0  # rounding leaves -0.0, which looks odd
    _state = spins[chosen.value]
    _places = np.array([[-0.9, 0.0], [0.9, 0.0], [0.0, 1.3]])
    _figure = Figure(figsize=(4.6, 3.6), layout="constrained")
    _axes = _figure.subplots()
    for (_one, _other), _value in J.items():
        _ends = _places[[NAMES.index(_one), NAMES.index(_other)]]
        _axes.plot(
            *_ends.T, color="#D55E00" if _value > 0 else "#009E73", linewidth=1 + 6 * abs(_value),
            zorder=0,
        )  # fmt: skip
        _axes.annotate(
            f"J = {_value:+.2f}", _ends.mean(axis=0), ha="center", va="center", fontsize=9,
            bbox={"boxstyle": "round", "facecolor": "white", "edgecolor": "none", "alpha": 0.85},
        )  # fmt: skip
    for _name, (_x, _y), _s in zip(NAMES, _places, _state, strict=True):
        _axes.scatter(_x, _y, s=2600, color="#0072B2" if _s > 0 else "#D9D9D9", zorder=1)
        _axes.annotate(
            f"{_name} {'↑' if _s > 0 else '↓'}\nh={h[_name]:+.2f}", (_x, _y), ha="center",
            va="center", fontsize=9, color="white" if _s > 0 else "black",
        )  # fmt: skip
    _axes.set_title(
        f"remove {label(STATES[chosen.value])}: E = {ising_energies[chosen.value]:.2f}", fontsize=10
    )
    _axes.set_axis_off()
    _axes.margins(0.3)
    _table = "| removed | spins A B C | E(x) | E(s) |\n|:---|:---|---:|---:|\n" + "\n".join(
        f"| {label(x)} | {' '.join('↑' if v > 0 else '↓' for v in s)} | {e:.2f} | {i:.2f} |"
        for x, s, e, i in zip(STATES, spins, problem.energy(STATES), ising_energies, strict=True)
    )
    mo.vstack(
        [
            chosen,
            mo.hstack([_figure, mo.md(_table)], widths=[1.2, 1], align="center"),
            mo.md(
                "Blue: up, removed. Orange lines: positive couplings, which want opposite spins; "
                "green lines: negative ones, which want equal spins. This follows the sliders of "
                "part 2 too."
            ),
        ]
    )
    return (ising_energies,)


@app.cell(hide_code=True)
def _():
    coupling_answer = mo.ui.radio(
        ["the two spins are equal", "the two spins are opposite"],
        label="A coupling J = +0.5 makes the energy smaller when ...",
    )
    mixed_answer = mo.ui.text(
        label="J AB belongs to H AB = 1.0. How large is it? (Multiply out, or look at the picture "
        "with the numbers of part 1.)"
    )
    return coupling_answer, mixed_answer


@app.cell(hide_code=True)
def _(START, coupling_answer, mixed_answer):
    _h, _J, _ = dimod.BinaryQuadraticModel(START, "BINARY").to_ising()
    coupling_verdict = verdicts.choice(
        coupling_answer.value,
        "the two spins are opposite",
        right="The product of opposite spins is -1, so J contributes -0.5. In words: remove one "
        "of the two, not both. That is what two blocks with the same job should do.",
        hint="What is the product of two equal spins, and what of two opposite ones?",
    )
    mixed_verdict = verdicts.number(
        mixed_answer.value,
        float(next(v for k, v in _J.items() if set(k) == {0, 1})),
        right="2 H_AB x_A x_B = 2 H_AB (1 + s_A)(1 + s_B) / 4, so J_AB = H_AB / 2.",
        hint="H_AB is counted twice in E(x), and each x is (1 + s) / 2.",
    )
    mo.vstack(
        [
            mo.md("### Check yourself"),
            coupling_answer, coupling_verdict,
            mixed_answer, mixed_verdict,
        ]
    )  # fmt: skip
    return coupling_verdict, mixed_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 4. A real model

    Eight states can be written down. A real model has more blocks. The table $H$ used below
    has 30 rows and 30 columns: it was measured on a small language model of 30 blocks
    (SmolLM2-135M), from which we remove some.
    """)
    return


@app.cell(hide_code=True)
def _():
    removed = mo.ui.slider(1, 15, 1, value=8, label="blocks to remove, M", show_value=True)
    count_answer = mo.ui.text(
        label="How many feasible states are there for 8 of 30 blocks? (`math.comb` knows.)"
    )
    return count_answer, removed


@app.cell(hide_code=True)
def _(count_answer, removed):
    sensitivity = load_sensitivity("smollm2-135m-ablation")
    real = BlockRemovalProblem(sensitivity, remove=removed.value)
    proof = get_backend("exact").sample(real, k=1)
    _best = np.asarray(proof.samples.record.sample[0])
    _single = np.zeros(len(real), dtype=np.int8)
    _single[np.argsort(np.diag(sensitivity.H))[: removed.value]] = 1
    one_by_one = float(real.energy(_single)[0])
    best_energy = float(proof.samples.record.energy[0])
    _figure = Figure(figsize=(7.5, 1.7), layout="constrained")
    _axes = _figure.subplots()
    _axes.imshow(np.array([_single, _best]), cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    _axes.set_yticks([0, 1], ["cheapest one by one", "ground state"])
    _axes.set_xticks(range(30), range(30), fontsize=7)
    _axes.set_xticks(np.arange(-0.5, 30), minor=True)
    _axes.set_yticks([-0.5, 0.5, 1.5], minor=True)
    _axes.grid(which="minor", color="white")
    _axes.tick_params(which="both", length=0)
    _axes.set_xlabel("block (filled: removed)")
    count_verdict = verdicts.number(
        count_answer.value,
        math.comb(30, 8),
        tolerance=0,
        right="Nearly six million, from thirty blocks. For 40 of 80 blocks it would be 10²³.",
        hint="The number of ways to choose 8 things out of 30.",
    )
    mo.vstack(
        [
            removed,
            _figure,
            mo.md(
                f"Removing the {removed.value} blocks that are cheapest *alone* costs "
                f"**{one_by_one:.3f}**; the ground state costs **{best_energy:.3f}**. "
                f"That it is the ground state is proved: the solver `exact` looked at "
                f"{proof.certificate.nodes:,} groups of states and showed that no state among "
                f"{real.reduced.num_feasible:,} lies lower."
            ),
            count_answer,
            count_verdict,
        ]
    )
    return best_energy, count_verdict, one_by_one


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What to take away

    - A state is a list of 0 and 1; its energy adds the entries of $H$ whose row and column are
      both removed. A budget makes some states feasible; the ground state is the best of them.
    - Blocks interact, so the cheapest blocks need not make the cheapest set.
    - With $s = 2x - 1$ the same numbers are an Ising model of fields and couplings.

    ## Exercises

    1. Find values of the sliders for which the ground state for $M = 1$ is A, but for $M = 2$ is
       B and C. (So "take the best and add the next best" is wrong from its first step.)
    2. Make all couplings beside the diagonal zero. Show that then the cheapest blocks *are* the
       ground state for every $M$.
    3. The field $h_A$ depends on $H_{AB}$ and $H_{AC}$, not only on $H_{AA}$. Multiply out to see
       why, and say in words why a block with many redundant partners feels a stronger pull to
       stay.
    4. In Python: `BlockRemovalProblem(Sensitivity(H=...), remove=2).energy([[1, 0, 1]])`. Check
       three rows of the table of part 3.

    Where do the numbers in $H$ come from? That is lesson (b).
    """)
    return


if __name__ == "__main__":
    app.run()
