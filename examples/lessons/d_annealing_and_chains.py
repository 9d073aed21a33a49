import marimo

__generated_with = "0.25.2"

app = marimo.App(width="medium", app_title="(d) Annealing and chains")

with app.setup:
    import marimo as mo
    import numpy as np
    import verdicts
    from dwave.samplers import SimulatedAnnealingSampler
    from matplotlib.figure import Figure

    from qblock import BlockRemovalProblem, Spectrum, get_backend, load_sensitivity
    from qblock.encoding import Encoding


@app.cell(hide_code=True)
def _():
    mo.md("""
    # (d) Annealing: cooling down, freezing, and chains that break

    **After this lesson you can** say what an annealing schedule does and when it ends too early,
    read an *embedding*, choose a chain strength, and tell which of an annealer's troubles come
    from physics and which from wiring. You need lessons (a) and (c).

    Everything here runs on this computer. The quantum annealer is **emulated**: its wiring is
    real, its physics is classical simulated annealing. So its pictures teach the wiring, and its
    success says nothing of a quantum machine.

    ## 1. Cooling down

    Simulated annealing starts with random spins. Again and again it looks at one spin and flips
    it if that lowers the energy. If it would raise the energy by ΔE, it still flips it with
    probability exp(-β ΔE). β is the *inverse temperature*: at β = 0 every flip is taken (hot), at
    large β only those that go down (cold). One look at every spin is a **sweep**. A **schedule**
    raises β from sweep to sweep.

    The problem is the real one: 30 blocks of a small language model, 4 to remove, the budget as a
    penalty of the least weight that is proved to do.
    """)
    return


@app.cell(hide_code=True)
def _():
    problem = BlockRemovalProblem(load_sensitivity("smollm2-135m-fisher"), remove=4)
    truth = Spectrum.of(problem, get_backend("exact").sample(problem, k=1))
    optimum = float(truth.energies[0])
    model = Encoding(problem.reduced).bqm()

    def anneal(sweeps, hot, cold, reads=100):
        """Energies of feasible reads, and the share of reads that are feasible."""
        samples = SimulatedAnnealingSampler().sample(
            model, num_reads=reads, num_sweeps=sweeps, beta_range=(hot, cold), seed=1
        )
        order = [samples.variables.index(block) for block in problem.blocks]
        states = samples.record.sample[:, order]
        feasible = problem.is_feasible(states)
        return problem.energy(states[feasible]), float(feasible.mean())

    typical = float(np.abs(list(model.linear.values())).mean())
    return anneal, optimum, problem, typical


@app.cell(hide_code=True)
def _():
    cold_slider = mo.ui.slider(
        -1.0, 4.0, 0.25, value=2.0, label="last β, as a power of ten over the typical field",
        show_value=True,
    )  # fmt: skip
    return (cold_slider,)


@app.cell(hide_code=True)
def _(anneal, cold_slider, optimum, typical):
    SWEEPS = (1, 3, 10, 30, 100, 300, 1000)
    hot = 0.1 / typical
    cold = max(10**cold_slider.value / typical, hot)
    schedule = [anneal(sweeps, hot, cold) for sweeps in SWEEPS]
    mean_energies = [float(found.mean()) if len(found) else np.nan for found, _ in schedule]
    _figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    _left, _right = _figure.subplots(1, 2)
    _left.semilogx(SWEEPS, mean_energies, "o-", label="mean of feasible reads")
    _left.semilogx(
        SWEEPS, [float(f.min()) if len(f) else np.nan for f, _ in schedule], "s-", label="best"
    )
    _left.axhline(optimum, color="black", linewidth=0.8, label="proved optimum")
    _left.set(xlabel="sweeps", ylabel="energy")
    _left.legend(fontsize=8)
    _right.semilogx(SWEEPS, [share for _, share in schedule], "o-", color="tab:green")
    _right.set(xlabel="sweeps", ylabel="share of reads that keep the budget", ylim=(0, 1.05))
    mo.vstack(
        [
            cold_slider,
            _figure,
            mo.md(
                "Slide the end of the schedule. Too hot at the end (left), and the spins never "
                "settle: more sweeps do not help. Too cold too soon (right), and they **freeze** "
                "in the first valley they meet: the mean stops falling although sweeps are left."
            ),
        ]
    )
    return mean_energies, schedule


@app.cell(hide_code=True)
def _():
    freeze_answer = mo.ui.radio(
        [
            "the optimum, always",
            "the nearest valley below its random start",
            "a state that breaks the budget",
        ],
        label="If the annealer is cold from the first sweep on (β huge), each read ends in ...",
    )
    probability_answer = mo.ui.text(
        label="A flip would raise the energy by 0.5, and β is 2. With which probability is it "
        "taken? (two digits)"
    )
    return freeze_answer, probability_answer


@app.cell(hide_code=True)
def _(freeze_answer, probability_answer):
    freeze_verdict = verdicts.choice(
        freeze_answer.value,
        "the nearest valley below its random start",
        right="It only goes down: this is *steepest descent*, the backend `descent`.",
        hint="Which flips are taken when β is huge?",
    )
    probability_verdict = verdicts.number(
        probability_answer.value,
        float(np.exp(-1.0)),
        tolerance=0.02,
        right="exp(-2 times 0.5) = exp(-1) = 0.37.",
        hint="Put β and ΔE into exp(-β ΔE).",
    )
    mo.vstack(
        [mo.md("### Check yourself"), freeze_answer, freeze_verdict, probability_answer,
         probability_verdict]
    )  # fmt: skip
    return freeze_verdict, probability_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 2. Chains

    In our problem *every* pair of blocks interacts. In a D-Wave processor a qubit touches only
    about fifteen others. So one block becomes a **chain** of several qubits, tied together by
    strong couplings so that they act as one. Which qubits make which chain is the **embedding**.
    Left the whole chip, right the part in use; every colour is one block.
    """)
    return


@app.cell(hide_code=True)
def _():
    topology = mo.ui.dropdown(
        {"Advantage (Pegasus)": "pegasus", "Advantage2 (Zephyr)": "zephyr"},
        value="Advantage (Pegasus)",
        label="graph",
    )
    return (topology,)


@app.cell(hide_code=True)
def _(problem, topology):
    annealer = get_backend("dwave-local")
    _settings = annealer.parse({"topology": topology.value})
    mo.vstack([topology, annealer.figure("embedding", problem.reduced, _settings)])
    return (annealer,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 3. How strong a chain?

    If the coupling inside a chain is too weak, its qubits end up pointing in different
    directions: the chain is **broken**, and the block's value must be guessed (by majority). If it
    is too strong, everything else must be scaled down to fit the chip's range, and the differences
    between good states drown in noise, or in temperature. The usual unit is the *torque* that a
    random state puts on a chain; 1.414 is Ocean's default.
    """)
    return


@app.cell(hide_code=True)
def _(annealer, problem):
    STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.414, 2.0, 3.0, 6.0)
    sweep = []
    for _strength in STRENGTHS:
        _result = annealer.sample(
            problem, seed=1, num_reads=100, num_sweeps=300, chain_strength=_strength
        )
        _spectrum = Spectrum.of(problem, _result)
        sweep.append(
            {
                "strength": _strength,
                "broken": _result.details["chain_break_fraction"],
                "feasible": _spectrum.feasible_rate,
                "scale": _result.details["coefficients"]["scale"],
                "best": float(_spectrum.energies[0]) if len(_spectrum) else np.nan,
            }
        )
    return (sweep,)


@app.cell(hide_code=True)
def _(optimum, sweep):
    _figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    _left, _right = _figure.subplots(1, 2)
    _x = [row["strength"] for row in sweep]
    _left.semilogx(_x, [row["broken"] for row in sweep], "o-", label="chains broken")
    _left.semilogx(_x, [row["feasible"] for row in sweep], "s-", label="reads that keep the budget")
    _left.set(xlabel="chain strength (units of the torque)", ylabel="share", ylim=(-0.02, 1))
    _left.legend(fontsize=8)
    _right.loglog(_x, [row["best"] / optimum for row in sweep], "o-", label="best energy / optimum")
    _right.loglog(
        _x, [row["scale"] / sweep[0]["scale"] for row in sweep], "s-",
        label="factor by which everything is scaled down",
    )  # fmt: skip
    _right.set(xlabel="chain strength (units of the torque)")
    _right.legend(fontsize=8)
    for _axes in (_left, _right):
        _axes.minorticks_off()
        _axes.set_xticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
    _right.set_yticks([1, 2, 4], ["1", "2", "4"])
    best_strength = max(sweep, key=lambda row: row["feasible"])["strength"]
    mo.vstack([_figure])
    return (best_strength,)


@app.cell(hide_code=True)
def _(sweep):
    strength_answer = mo.ui.dropdown(
        [str(row["strength"]) for row in sweep],
        label="At which of these strengths do most reads keep the budget?",
    )
    return (strength_answer,)


@app.cell(hide_code=True)
def _(best_strength, strength_answer):
    strength_verdict = verdicts.choice(
        strength_answer.value,
        str(best_strength),
        right="Weaker chains break; stronger ones squeeze the problem itself.",
        hint="Find the top of the line with squares in the left picture.",
    )
    mo.vstack([mo.md("### Check yourself"), strength_answer, strength_verdict])
    return (strength_verdict,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## Exercises

    1. Set `penalty="safe"` in the sweep of section 3 (`annealer.sample(..., penalty="safe")`). Does
       the best strength move? Why?
    2. `postprocess` lets every read walk downhill at the end. How much of the annealer's result is
       the annealer's? (The raw and the polished samples are both in `result.details`.)
    3. How many qubits would 80 blocks need? Try `qblock solve` with `--dry-run` on an instance of
       80 blocks, on both graphs.
    4. With an account: `qblock solve smollm2-135m-fisher --remove 4 -b leap-qpu --dry-run` says
       what the same run costs on a real processor.
    """)
    return


if __name__ == "__main__":
    app.run()
