import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="(c) The penalty")

with app.setup:
    import itertools

    import marimo as mo
    import numpy as np
    import verdicts
    from matplotlib.figure import Figure
    from qblock_classical.annealing import objective_beta_range
    from qblock_dwave.embedding import embed
    from qblock_dwave.local import emulated_graph

    from qblock import BlockRemovalProblem, Spectrum, get_backend
    from qblock.generators import random_instance
    from qblock.penalty import penalty_weight


@app.cell(hide_code=True)
def _():
    mo.md("""
    # (c) The penalty

    **After this lesson you can** turn a budget into a term of the energy, say how heavy that term
    has to be, and explain why "just make it very heavy" ruins the machines that need it.
    You need lesson (a).

    ## 1. Machines that know no rules

    "Remove exactly $M$ blocks" is a rule. *Annealers* (part 2 says what they are) and most quantum
    algorithms know no rules; they can only make an energy small. Left alone, they would remove
    nothing: that costs nothing. So the rule is turned into energy: whoever breaks it pays a
    **penalty**,

    $$E(x) + \\lambda \\left( \\sum_i x_i - M \\right)^2 .$$

    A state that removes exactly $M$ blocks pays nothing. One block too many or too few costs
    $\\lambda$ ("lambda", the *penalty weight*), two cost $4\\lambda$, three $9\\lambda$.

    Below are all states of a problem of ten blocks, sorted by how many blocks they remove. Each
    dash is a state, its height is the energy *with* penalty. The blue dashes in the middle are
    feasible: they pay nothing and never move. Move $\\lambda$ and watch the others.
    """)
    return


@app.cell
def _():
    blocks, budget, reads = 10, 4, 100
    return blocks, budget, reads


@app.cell(hide_code=True)
def _(blocks, budget):
    problem = BlockRemovalProblem(random_instance("homog", blocks, seed=3), remove=budget)
    states = np.array(list(itertools.product((0, 1), repeat=blocks)), dtype=np.int8)
    energies, counts = problem.energy(states), states.sum(axis=1)
    feasible = problem.is_feasible(states)
    ground_energy = float(energies[feasible].min())
    highest_energy = float(energies[feasible].max())
    _off = ~feasible
    _ratio = (ground_energy - energies[_off]) / (counts[_off] - budget) ** 2
    _ratio_all = (highest_energy - energies[_off]) / (counts[_off] - budget) ** 2
    threshold, safe_threshold = float(_ratio.max()), float(_ratio_all.max())
    tight = penalty_weight(problem.reduced, "tight")
    safe = penalty_weight(problem.reduced, "safe")
    return (
        counts, energies, feasible, ground_energy, highest_energy, problem, safe, safe_threshold,
        states, threshold, tight,
    )  # fmt: skip


@app.cell(hide_code=True)
def _(safe_threshold):
    weight_slider = mo.ui.slider(
        0.0, round(1.5 * safe_threshold, 1), 0.05, value=0.0, label="penalty weight λ",
        show_value=True, full_width=True,
    )  # fmt: skip
    return (weight_slider,)


@app.cell(hide_code=True)
def _(budget, counts, energies, feasible, ground_energy, weight_slider):
    weight = weight_slider.value
    penalised = energies + weight * (counts - budget) ** 2
    lowest = int(penalised.argmin())
    lowest_is_feasible = bool(feasible[lowest])
    _figure = Figure(figsize=(7.5, 4), layout="constrained")
    _axes = _figure.subplots()
    _below = ~feasible & (penalised < ground_energy)
    for _which, _colour, _label in (
        (~feasible & ~_below, "0.7", "infeasible"),
        (_below, "#D55E00", "infeasible, below the best feasible state"),
        (feasible, "#0072B2", "feasible"),
    ):
        _axes.hlines(
            penalised[_which], counts[_which] - 0.38, counts[_which] + 0.38, color=_colour,
            linewidth=1, label=_label,
        )  # fmt: skip
    _axes.axhline(ground_energy, color="#0072B2", linewidth=0.8, linestyle="--")
    _axes.set_ylim(-1, 3 * energies[feasible].max())
    _axes.set_xticks(range(len(np.unique(counts))))
    _axes.set_xlabel(f"removed blocks (the rule wants {budget})")
    _axes.set_ylabel("energy with penalty")
    _axes.legend(loc="upper left", fontsize=8)
    _axes.set_title(
        f"λ = {weight:.2f}: the lowest state of all removes {counts[lowest]} of {counts.max()} "
        f"({'feasible' if lowest_is_feasible else 'breaks the rule'})"
    )
    mo.vstack(
        [
            weight_slider,
            _figure,
            mo.md(
                f"{int(_below.sum())} infeasible states lie below the best feasible one. "
                "At λ = 0 those that remove few blocks have all sunk below it. A machine that "
                "works perfectly would return one of them, and be useless."
            ),
        ]
    )
    return lowest_is_feasible, penalised


@app.cell(hide_code=True)
def _():
    threshold_answer = mo.ui.text(
        label="From which λ on is the lowest state of all feasible? (to within 5 %)"
    )
    safe_answer = mo.ui.text(
        label="From which λ on does every infeasible state lie above every feasible one? "
        "(to within 5 %)"
    )
    scaling_answer = mo.ui.text(label="A state removes 3 blocks too many. It pays λ times ...")
    return safe_answer, scaling_answer, threshold_answer


@app.cell(hide_code=True)
def _(
    safe, safe_answer, safe_threshold, scaling_answer, threshold, threshold_answer, tight
):  # fmt: skip
    threshold_verdict = verdicts.number(
        threshold_answer.value,
        threshold,
        tolerance=0.05,
        right=f"It is {threshold:.4f}. qblock's `penalty='tight'` gives {tight:.4f}, and proves "
        "that it is enough without looking at all states.",
        hint="Move λ slowly up and watch the title of the picture.",
    )
    safe_verdict = verdicts.number(
        safe_answer.value,
        safe_threshold,
        tolerance=0.05,
        right=f"It is {safe_threshold:.4f}; `penalty='safe'` gives {safe:.4f}. That is "
        f"{safe_threshold / threshold:.1f} times the weight that the ground state alone needs.",
        hint="The highest blue dash must lie below the lowest grey one. Look at the columns "
        "beside the middle.",
    )
    scaling_verdict = verdicts.number(
        scaling_answer.value,
        9,
        tolerance=0,
        right="The square makes far-off states pay far more; only the neighbours matter.",
        hint="It is the square of how many are too many.",
    )
    mo.vstack(
        [
            mo.md("### Check yourself"),
            threshold_answer, threshold_verdict,
            safe_answer, safe_verdict,
            scaling_answer, scaling_verdict,
        ]
    )  # fmt: skip
    return safe_verdict, scaling_verdict, threshold_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 2. Why not a million?

    On paper a heavier penalty is never wrong. In a machine it is, for two reasons.

    **Temperature.** An *annealer* is a program (or a device) that changes a state at random, one
    block at a time. It always accepts a change that lowers the energy, and sometimes one that
    raises it: the higher its **temperature**, the more often. It starts hot, where everything is
    accepted, and cools down slowly, so that the state settles low. (Lesson (d) is about this.)
    It must therefore be hot enough at first to climb the *largest* steps of the energy, and cool
    enough in the end to tell apart the *smallest*. A huge penalty is a huge step: an annealer
    that takes its temperatures from the numbers it is given spends its time where only the
    penalty is felt and the energies of the blocks are noise.

    **Precision.** A quantum annealer is an analogue device: fields and couplings are currents in
    a chip, with a largest value and some noise. The largest number is scaled to the largest
    current, and all others with it. If the largest number is the penalty, the numbers that matter
    shrink towards the noise.

    Both are measured here, on the same ten blocks. The annealer runs for real, with short
    anneals, at the λ of the slider; the picture shows a sweep over λ.
    """)
    return


@app.cell(hide_code=True)
def _():
    heavy = mo.ui.slider(
        -1.0, 4.0, 0.25, value=0.0, label="λ = tight weight × 10 to the power", show_value=True,
        full_width=True,
    )  # fmt: skip
    return (heavy,)


@app.cell(hide_code=True)
def _(highest_energy, ground_energy, problem, reads, tight):
    def annealed(weight):
        """Feasible share, median gap and temperatures of short anneals at a penalty weight."""
        result = get_backend("annealing").sample(
            problem, seed=1, num_reads=reads, num_sweeps=20, penalty=weight
        )
        spectrum = Spectrum.of(problem, result)
        if not len(spectrum):
            return 0.0, np.nan, result.details["beta_range"]
        drawn = np.repeat(spectrum.energies, spectrum.occurrences)
        gap = (np.median(drawn) - ground_energy) / (highest_energy - ground_energy)
        return spectrum.feasible_rate, float(gap), result.details["beta_range"]

    def bits_lost(weight):
        """Bits of an analogue annealer's precision that go to the penalty."""
        embedded = embed(
            problem.reduced, emulated_graph("pegasus"), penalty=weight, prefactor=1.414
        )
        return embedded.coefficients.bits_lost

    powers = np.arange(-1.0, 4.01, 0.5)
    sweep = [annealed(tight * 10**power) for power in powers]
    bits = [bits_lost(tight * 10**power) for power in powers]
    wanted = objective_beta_range(problem.reduced)
    return annealed, bits, bits_lost, powers, sweep, wanted


@app.cell(hide_code=True)
def _(annealed, bits, bits_lost, heavy, powers, sweep, tight, wanted):
    here = annealed(tight * 10**heavy.value)
    lost_here = bits_lost(tight * 10**heavy.value)
    _figure = Figure(figsize=(8.5, 5.4), layout="constrained")
    (_share, _gap), (_temperature, _bits) = _figure.subplots(2, 2, sharex=True)
    _share.plot(powers, [100 * s for s, _, _ in sweep], "o-", color="#0072B2")
    _share.set_ylabel("feasible samples (%)")
    _gap.plot(powers, [100 * g for _, g, _ in sweep], "o-", color="#D55E00")
    _gap.set_ylabel("median gap of the\nfeasible samples (%)")
    _temperature.fill_between(
        powers,
        [1 / b[1] for _, _, b in sweep],
        [1 / b[0] for _, _, b in sweep],
        color="#56B4E9",
        alpha=0.5,
        label="annealer's choice",
    )
    _temperature.axhspan(1 / wanted[1], 1 / wanted[0], color="#009E73", alpha=0.35, label="needed")
    _temperature.set_yscale("log")
    _temperature.set_ylabel("temperatures")
    _temperature.legend(fontsize=8)
    _bits.plot(powers, bits, "o-", color="#8C6BB1")
    _bits.set_ylabel("bits of precision lost")
    for _axes in (_share, _gap, _temperature, _bits):
        _axes.axvline(heavy.value, color="0.4", linestyle="--", linewidth=0.8)
    for _axes in (_temperature, _bits):
        _axes.set_xlabel("penalty weight: tight × 10 to the power")
    mo.vstack(
        [
            heavy,
            _figure,
            mo.md(
                f"At λ = {tight * 10**heavy.value:.3g}: **{here[0]:.0%}** of the samples are "
                f"feasible, their median gap is **{here[1]:.0%}** (0 % is the ground state, 100 % "
                f"the worst feasible state), and **{lost_here:.1f} bits** of an analogue "
                "annealer's precision go to the penalty. (One bit less means that numbers must "
                "differ by twice as much to be told apart; an annealer today has some 5 to 8 bits "
                "in all.) Green: the temperatures at which swapping two blocks is neither free nor "
                "impossible; that is where the work is done."
            ),
        ]
    )
    return here, lost_here


@app.cell(hide_code=True)
def _():
    middle_answer = mo.ui.radio(
        ["near the tight weight", "ten times as much", "a thousand times as much"],
        label="Of the feasible samples, where are the best?",
    )
    bits_answer = mo.ui.text(
        label="Far to the right: ten times the weight costs how many more bits? "
        "(to within 10 %; what is log2 of ten?)"
    )
    return bits_answer, middle_answer


@app.cell(hide_code=True)
def _(bits_answer, middle_answer, powers, sweep):
    _gaps = {
        "near the tight weight": sweep[int(np.argmin(abs(powers)))][1],
        "ten times as much": sweep[int(np.argmin(abs(powers - 1)))][1],
        "a thousand times as much": sweep[int(np.argmin(abs(powers - 3)))][1],
    }
    middle_verdict = verdicts.choice(
        middle_answer.value,
        min(_gaps, key=_gaps.__getitem__),
        right="Fewer samples are feasible there, and those that are, are good. That is why "
        "qblock's default is the *tight* weight, and why it proves how small that may be.",
        hint="Look at the picture at the upper right.",
    )
    bits_verdict = verdicts.number(
        bits_answer.value,
        float(np.log2(10)),
        tolerance=0.1,
        right="All else is divided by ten, and log2(10) = 3.3.",
        hint="Read two points of the lower right picture, one apart on the axis.",
    )
    mo.vstack(
        [mo.md("### Check yourself"), middle_answer, middle_verdict, bits_answer, bits_verdict]
    )
    return bits_verdict, middle_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What to take away

    - A penalty turns a rule into energy. Too light, and the lowest state breaks the rule.
    - Too heavy, and the energies that matter drown: in the annealer's temperatures, and in the
      precision of an analogue device.
    - So the weight should be *just* enough, with proof. That is `penalty="tight"`.
    - Solvers that swap one removed block for one kept block never break the rule and need no
      penalty. In lesson (g) you will see what that is worth.

    ## Exercises

    1. "More than the energy of any feasible state" is the usual advice for λ. Compare it with the
       threshold you found. By which factor is it too heavy?
    2. Run `qblock show smollm2-135m-ablation --remove 8 --form ising` with `--penalty tight` and
       `--penalty safe`, and compare the largest coefficients.
    3. Give the annealer the green temperatures:
       `get_backend("annealing").sample(problem, penalty="safe", beta_range="objective")`. How many
       samples are feasible now, and how good are they? Which of the two evils is cured?
    4. Change `budget` to 1 and to 9. Where is the threshold, and which states set it?
    """)
    return


if __name__ == "__main__":
    app.run()
