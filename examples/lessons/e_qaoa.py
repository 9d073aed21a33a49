import marimo

__generated_with = "0.25.2"
app = marimo.App(width="medium", app_title="(e) QAOA")

with app.setup:
    import math

    import marimo as mo
    import numpy as np
    import verdicts
    from matplotlib.figure import Figure
    from qblock_qiskit.outcome import exact_outcome, landscape
    from qblock_qiskit.vector import probabilities

    from qblock import BlockRemovalProblem, get_backend
    from qblock.generators import random_instance


@app.cell(hide_code=True)
def _():
    mo.md("""
    # (e) QAOA: turning arrows, letting them mix

    **After this lesson you can** say what the two angles of QAOA do, read its energy landscape,
    tell a mixer that keeps the budget from one that does not, and judge what either is worth
    against guessing. You need lessons (a) and (c), and no quantum mechanics.

    Every picture comes from qblock's exact simulators, which compute what a perfect quantum
    computer would do. Part 4 lets noise in.

    ## 1. An arrow for every state

    A quantum computer does not hold one state of our blocks. It holds an **arrow** in the plane
    for *every* state at once. (Its technical name is *amplitude*.) Looking at the machine is called
    a **measurement**, or a *shot*: it returns one state by chance, and destroys the rest.
    **The probability of a state is the squared length of its arrow**, so all squared lengths add
    up to 1. One cannot see the arrows themselves.

    The *quantum approximate optimisation algorithm*, QAOA, starts with all arrows equal and makes
    two kinds of moves, in turn:

    - the **cost layer** turns every arrow by an angle that is $\\gamma$ ("gamma") times the energy
      of its state. No length changes;
    - the **mixer** passes a part of each arrow on to the *neighbours* of its state, and turns
      that part by a quarter of a circle. How much is passed on is set by $\\beta$ ("beta").
      Arriving arrows are added tip to tail: those that point the same way make a long one, those
      that point opposite ways cancel. This is **interference**, and it is the whole trick.

    Here are the six states of a problem of four blocks of which two go, from the lowest energy on
    the left to the highest. Two states are neighbours if one swap of a removed block for a kept
    one leads from one to the other. Turn both angles so that the arrow on the left grows.
    """)
    return


@app.cell(hide_code=True)
def _():
    VARIANTS = {
        "XY mixer, all pairs": ("qaoa-fixed-weight", {"mixer": "complete"}),
        "XY mixer, ring": ("qaoa-fixed-weight", {"mixer": "ring"}),
        "X mixer, tight penalty": ("qaoa", {"penalty": "tight"}),
        "X mixer, safe penalty": ("qaoa", {"penalty": "safe"}),
    }

    def ansatz_of(variant, problem):
        """The way in which a variant makes its arrows for a problem."""
        name, parameters = VARIANTS[variant]
        backend = get_backend(name)
        return backend.ansatz(problem.reduced, backend.parse(parameters))

    def evolved(ansatz, simulator, betas, gammas):
        """The arrows after layers with these angles, in standard units."""
        angles = np.array([*betas, *gammas], dtype=float)
        return simulator.evolve(*ansatz.units(simulator).radians(angles))

    return VARIANTS, ansatz_of, evolved


@app.cell(hide_code=True)
def _():
    few_gamma = mo.ui.slider(0.0, 3.0, 0.1, value=0.0, label="γ, the cost layer", show_value=True)
    few_beta = mo.ui.slider(-1.5, 1.5, 0.1, value=0.0, label="β, the mixer", show_value=True)
    return few_beta, few_gamma


@app.cell(hide_code=True)
def _(VARIANTS, ansatz_of, evolved, few_beta, few_gamma):
    few = BlockRemovalProblem(random_instance("homog", 4, seed=1), remove=2)
    _ansatz = ansatz_of(next(iter(VARIANTS)), few)
    _simulator = _ansatz.simulator()
    _order = np.argsort(_simulator.energies)
    _states = few.reduced.lift(_simulator.states(_order))
    _stages = {
        "start": evolved(_ansatz, _simulator, [0], [0]),
        "after the\ncost layer": evolved(_ansatz, _simulator, [0], [few_gamma.value]),
        "after the\nmixer": evolved(_ansatz, _simulator, [few_beta.value], [few_gamma.value]),
    }
    arrows = {stage: psi[_order] for stage, psi in _stages.items()}
    _figure = Figure(figsize=(8, 4.4), layout="constrained")
    _axes = _figure.subplots()
    for _row, (_stage, _psi) in enumerate(arrows.items()):
        for _column, _arrow in enumerate(_psi):
            _centre = np.array([_column, -_row])
            _tip = _centre + 0.45 * np.array([_arrow.real, _arrow.imag])
            _circle = np.exp(1j * np.linspace(0, 2 * np.pi, 60))
            _axes.plot(
                _column + 0.45 * _circle.real, -_row + 0.45 * _circle.imag, color="0.85", zorder=0
            )
            _axes.annotate(
                "", _tip, _centre,
                arrowprops={"arrowstyle": "-|>", "color": "#0072B2", "linewidth": 2,
                            "shrinkA": 0, "shrinkB": 0},
            )  # fmt: skip
            _axes.annotate(
                f"{abs(_arrow) ** 2:.0%}",
                _centre + np.array([0.36, -0.42]),
                ha="center",
                fontsize=9,
            )
    _axes.set_xticks(
        range(len(_order)),
        [
            f"remove {' '.join(few.blocks[i] for i in np.flatnonzero(state))}\nE = {energy:.2f}"
            for state, energy in zip(_states, few.energy(_states), strict=True)
        ],
        fontsize=9,
    )
    _axes.set_yticks([0, -1, -2], list(arrows))
    _axes.set(aspect="equal", xlim=(-0.6, 5.7), ylim=(-2.6, 0.55))
    _axes.tick_params(length=0)
    _axes.spines[:].set_visible(False)
    mo.vstack(
        [
            mo.hstack([few_gamma, few_beta], justify="start", gap=2),
            _figure,
            mo.md(
                "The circle is an arrow of length 1, which would be a certain outcome; the number "
                "is the probability. Both angles are in *standard units*: γ in units of one over "
                "the typical spread of the energies, so that the same numbers suit every problem."
            ),
        ]
    )
    return (arrows,)


@app.cell(hide_code=True)
def _():
    phase_answer = mo.ui.radio(
        ["it rises with γ", "it stays the same", "it falls with γ"],
        label="β stands at 0. What does the cost layer do to the probability of the best state?",
    )
    return (phase_answer,)


@app.cell(hide_code=True)
def _(arrows, phase_answer):
    phase_verdict = verdicts.choice(
        phase_answer.value,
        "it stays the same",
        right="Turning an arrow does not change its length. The mixer is needed to make lengths of "
        "angles.",
        hint="Put β to 0, move γ and compare the percentages of the rows.",
    )
    _start, _, _end = (abs(stage[0]) ** 2 for stage in arrows.values())
    few_verdict = verdicts.goal(
        _end >= 2 * _start,
        right=f"The best state now has {_end:.0%}, from {_start:.0%}. Its neighbours pointed the "
        "right way when their parts arrived.",
        hint=f"It has {_end:.0%} now. Move γ to about 1 first, then β from one end to the other.",
    )
    mo.vstack(
        [
            mo.md("### Check yourself"),
            phase_answer, phase_verdict,
            mo.md("Set the sliders so that the best state becomes at least twice as probable."),
            few_verdict,
        ]
    )  # fmt: skip
    return few_verdict, phase_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 2. The landscape, and two mixers

    Now the ten blocks of lesson (c), of which four go. Which states are neighbours is a choice, and
    it decides whether the budget is kept:

    - The **XY mixer** passes parts on by *swapping* a removed block for a kept one. If only states
      with four removed blocks have arrows at the start, no other state ever gets one: the budget
      is kept without a penalty. *All pairs* allows every swap, *ring* only swaps of blocks beside
      each other.
    - The **X mixer** passes parts on by *flipping* one block. It is simpler to build, but it starts
      from all $2^{10} = 1024$ states and leaves the budget at every step. So the energy needs the
      penalty of lesson (c).

    One layer has two angles, so its mean energy is a landscape over a plane: valleys are good. The
    cross is where the sliders stand. On the right is what measuring there would give.
    """)
    return


@app.cell(hide_code=True)
def _(VARIANTS):
    variant = mo.ui.dropdown(list(VARIANTS), value="XY mixer, all pairs", label="mixer")
    gamma = mo.ui.slider(0.0, 3.0, 0.05, value=0.3, label="γ", show_value=True)
    beta = mo.ui.slider(-1.5, 1.5, 0.05, value=0.3, label="β", show_value=True)
    return beta, gamma, variant


@app.cell(hide_code=True)
def _(VARIANTS, ansatz_of):
    problem = BlockRemovalProblem(random_instance("homog", 10, seed=3), remove=4)
    ansaetze = {name: ansatz_of(name, problem) for name in VARIANTS}
    simulators = {name: ansatz.simulator() for name, ansatz in ansaetze.items()}
    BETAS, GAMMAS = np.linspace(-1.5, 1.5, 41), np.linspace(0, 3, 41)
    landscapes = {
        name: landscape(simulators[name], ansatz.beta_unit * BETAS, GAMMAS)
        for name, ansatz in ansaetze.items()
    }

    def draw_energies(axes, name, psi):
        """What measuring gives: the energies of states that keep the budget, and the others."""
        simulator, weights = simulators[name], probabilities(psi)
        inside = simulator.feasible
        energies = simulator.energies[inside]
        edges = np.linspace(energies.min(), energies.max(), 31)
        found, _ = np.histogram(energies, edges, weights=weights[inside])
        guessed, _ = np.histogram(
            energies, edges, weights=np.full(len(energies), 1 / len(energies))
        )
        axes.stairs(found, edges, fill=True, color="#56B4E9", label="QAOA")
        axes.stairs(guessed, edges, color="black", label="guess that keeps the budget")
        axes.set(xlabel="energy", ylabel="probability")
        axes.set_title(f"{weights[~inside].sum():.0%} break the budget (not drawn)", fontsize=10)
        axes.margins(y=0.3)
        axes.legend(fontsize=8)

    return BETAS, GAMMAS, ansaetze, draw_energies, landscapes, problem, simulators


@app.cell(hide_code=True)
def _(
    BETAS, GAMMAS, ansaetze, beta, draw_energies, evolved, gamma, landscapes, simulators, variant
):  # fmt: skip
    _simulator = simulators[variant.value]
    _psi = evolved(ansaetze[variant.value], _simulator, [beta.value], [gamma.value])
    here = exact_outcome(_simulator, _psi, 0.0)
    gain = here.optimum_probability / here.random_probability
    _figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    _map, _energies = _figure.subplots(1, 2)
    _image = _map.pcolormesh(GAMMAS, BETAS, landscapes[variant.value], shading="nearest")
    _figure.colorbar(_image)
    _map.plot(gamma.value, beta.value, "x", color="white", markersize=13, markeredgewidth=4)
    _map.plot(gamma.value, beta.value, "x", color="#D55E00", markersize=12, markeredgewidth=2)
    _map.set(xlabel="γ", ylabel="β", title="mean energy after one layer")
    draw_energies(_energies, variant.value, _psi)
    mo.vstack(
        [
            mo.hstack([variant, gamma, beta], justify="start", gap=2),
            _figure,
            mo.md(
                f"Mean energy **{here.energy:.2f}** (least on the map: "
                f"{landscapes[variant.value].min():.2f}). The budget is kept with probability "
                f"**{here.feasible_probability:.1%}**. The optimum comes with probability "
                f"**{here.optimum_probability:.2%}**, {gain:.1f} times that of a guess among the "
                f"{int(_simulator.feasible.sum())} states that keep the budget "
                f"({here.random_probability:.2%})."
            ),
        ]
    )
    return gain, here


@app.cell(hide_code=True)
def _():
    x_answer = mo.ui.radio(
        ["more often than the guess", "as often as the guess", "less often than the guess"],
        label="Take the X mixer with the tight penalty, at its lowest valley. How often does it "
        "return the optimum, beside a guess among the states that keep the budget?",
    )
    count_answer = mo.ui.text(
        label="How many arrows does the XY mixer need for 8 of 30 blocks? (`math.comb` knows.)"
    )
    return count_answer, x_answer


@app.cell(hide_code=True)
def _(
    BETAS, GAMMAS, ansaetze, count_answer, evolved, gain, landscapes, simulators, variant, x_answer
):  # fmt: skip
    lowest = {}
    for _name, _map in landscapes.items():
        _b, _g = np.unravel_index(_map.argmin(), _map.shape)
        _psi = evolved(ansaetze[_name], simulators[_name], [BETAS[_b]], [GAMMAS[_g]])
        lowest[_name] = exact_outcome(simulators[_name], _psi, 0.0)
    _x = lowest["X mixer, tight penalty"]
    x_verdict = verdicts.choice(
        x_answer.value,
        "less often than the guess"
        if _x.optimum_probability < _x.random_probability
        else "more often than the guess",
        right=f"{_x.optimum_probability:.2%} against {_x.random_probability:.2%}. The penalty "
        "makes the largest differences of energy, so with one layer the angles serve the penalty, "
        f"and still only {_x.feasible_probability:.0%} of the shots keep the budget.",
        hint="Choose the mixer, walk to the darkest place of the map and read the text below it.",
    )
    found_verdict = verdicts.goal(
        variant.value == "XY mixer, all pairs" and gain >= 10,
        right=f"{gain:.0f} times, with one layer and two numbers.",
        hint=f"It is {gain:.1f} times now. Walk into the valley, then on along β.",
    )
    count_verdict = verdicts.number(
        count_answer.value,
        math.comb(30, 8),
        tolerance=0,
        right="Few enough for this computer; all $2^{30}$ states of the X mixer would take 16 GiB.",
        hint="As many as there are states that keep the budget.",
    )
    mo.vstack(
        [
            mo.md(
                "### Check yourself\n\nWith the XY mixer on all pairs, find angles for which the "
                "optimum is at least ten times as probable as by a guess."
            ),
            found_verdict,
            x_answer, x_verdict,
            count_answer, count_verdict,
        ]
    )  # fmt: skip
    return count_verdict, found_verdict, lowest, x_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 3. More layers

    With $p$ layers there are $2p$ angles. A classical computer searches for them: it asks for the
    mean energy at some angles, changes them a little, asks again. Below, qblock searched with 120
    such questions for each variant and each $p$. (On a real machine every question is a thousand
    shots, and the bill for it is part of the price.)
    """)
    return


@app.cell(hide_code=True)
def _(VARIANTS, problem):
    LAYERS = (1, 2, 3, 4, 5)
    trained = {
        name: [
            get_backend(backend).sample(problem, seed=1, p=p, **parameters).details for p in LAYERS
        ]
        for name, (backend, parameters) in VARIANTS.items()
    }
    layers = mo.ui.slider(steps=LAYERS, value=1, label="layers p", show_value=True)
    shown = mo.ui.dropdown(list(VARIANTS), value="XY mixer, all pairs", label="mixer")
    return LAYERS, layers, shown, trained


@app.cell(hide_code=True)
def _(LAYERS, ansaetze, draw_energies, evolved, layers, shown, simulators, trained):
    _figure = Figure(figsize=(9.5, 3.9), layout="constrained")
    _kept, _optimum, _energies = _figure.subplots(1, 3)
    for _name, _marker in zip(trained, "os^v", strict=True):
        _kept.plot(
            LAYERS, [d["feasible_probability"] for d in trained[_name]], _marker + "-", label=_name
        )
        _optimum.semilogy(
            LAYERS, [d["optimum_probability"] for d in trained[_name]], _marker + "-", label=_name
        )
    _guess = trained[shown.value][0]["random_probability"]
    _optimum.axhline(_guess, color="black", linewidth=0.8)
    _optimum.annotate("guess", (LAYERS[0], _guess), va="bottom", fontsize=8)
    _kept.set(xlabel="layers p", ylabel="probability to keep the budget", ylim=(0, 1.05))
    _optimum.set(xlabel="layers p", ylabel="probability of the optimum")
    _figure.legend(*_kept.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    for _axes in (_kept, _optimum):
        _axes.axvline(layers.value, color="0.4", linestyle="--", linewidth=0.8)
    chosen = trained[shown.value][LAYERS.index(layers.value)]
    draw_energies(
        _energies, shown.value,
        evolved(ansaetze[shown.value], simulators[shown.value],
                chosen["angles"][: layers.value], chosen["angles"][layers.value :]),
    )  # fmt: skip
    mo.vstack(
        [
            mo.hstack([layers, shown], justify="start", gap=2),
            _figure,
            mo.md(
                f"{shown.value}, p = {layers.value}: the optimum has probability "
                f"**{chosen['optimum_probability']:.2%}**, the budget is kept with "
                f"**{chosen['feasible_probability']:.1%}**, and the circuit for it has "
                f"**{chosen['two_qubit_gates']}** gates on two qubits."
            ),
        ]
    )
    return (chosen,)


@app.cell(hide_code=True)
def _():
    shots_answer = mo.ui.text(
        label="XY mixer on all pairs, p = 3: how many shots until the optimum was seen with "
        "probability 99 %? (to within 5 %)"
    )
    return (shots_answer,)


@app.cell(hide_code=True)
def _(LAYERS, shots_answer, trained):
    _deep = trained["XY mixer, all pairs"][LAYERS.index(3)]
    shots_needed, guesses_needed = (
        math.log(0.01) / math.log(1 - _deep[which])
        for which in ("optimum_probability", "random_probability")
    )
    shots_verdict = verdicts.number(
        shots_answer.value,
        shots_needed,
        tolerance=0.05,
        right=f"Some {shots_needed:.0f} shots, where guessing takes {guesses_needed:.0f}. "
        f"But {_deep['evaluations']} questions of many shots each were asked to find the angles. "
        "Lesson (g) is about who pays for those.",
        hint="n shots all miss with probability (1 - P)ⁿ. When is that 0.01?",
    )
    mo.vstack([mo.md("### Check yourself"), shots_answer, shots_verdict])
    return guesses_needed, shots_needed, shots_verdict


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## 4. The circuit, and noise

    A quantum program is a **circuit**: a line for each qubit (here a block), boxes are *gates*,
    time runs to the right. A gate on two qubits is a vertical connection. On today's machines such
    a gate goes wrong about once in a hundred times, so their number decides what comes out.

    Both circuits below are for one layer and three blocks of which one goes.
    """)
    return


@app.cell(hide_code=True)
def _():
    drawn = mo.ui.dropdown(
        {"XY mixer": "qaoa-fixed-weight", "X mixer": "qaoa"}, value="XY mixer", label="circuit"
    )
    return (drawn,)


@app.cell(hide_code=True)
def _(drawn):
    _three = BlockRemovalProblem(random_instance("homog", 3, seed=3), remove=1)
    mo.vstack([drawn, mo.plain_text(get_backend(drawn.value).draw_circuit(_three.reduced))])
    return


@app.cell(hide_code=True)
def _():
    mo.md("""
    Now five blocks of which two go, on a machine whose published error rates are simulated: IBM's
    five-qubit *Manila*. The angles were found without noise; only the last shots are noisy.
    """)
    return


@app.cell(hide_code=True)
def _():
    five = BlockRemovalProblem(random_instance("homog", 5, seed=3), remove=2)
    _table = "| circuit | gates on two qubits, on this machine | keeps the budget: without noise "
    _table += "| with noise |\n|:---|---:|---:|---:|\n"
    noise = {}
    for _label, _name in (("XY mixer, all pairs", "qaoa-fixed-weight"), ("X mixer", "qaoa")):
        _perfect, _noisy = (
            get_backend(_name).sample(five, seed=1, p=1, device=device, shots=4096).details
            for device in ("exact", "noisy:manila")
        )
        noise[_label] = {
            "gates": _noisy["transpiled_two_qubit_gates"],
            "perfect": _perfect["feasible_probability"],
            "noisy": _noisy["feasible_probability"],
        }
        _table += "| {} | {gates} | {perfect:.0%} | {noisy:.0%} |\n".format(_label, **noise[_label])
    guess_keeps = math.comb(5, 2) / 2**5
    mo.md(
        _table + f"\nFive coins thrown blindly keep the budget in {guess_keeps:.0%} of the throws."
    )
    return guess_keeps, noise


@app.cell(hide_code=True)
def _(noise):
    noise_answer = mo.ui.radio(
        list(noise), label="Which circuit loses more of its power to keep the budget to noise?"
    )
    return (noise_answer,)


@app.cell(hide_code=True)
def _(noise, noise_answer):
    _lost = {name: figures["perfect"] - figures["noisy"] for name, figures in noise.items()}
    noise_verdict = verdicts.choice(
        noise_answer.value,
        max(_lost, key=_lost.__getitem__),
        right="It keeps the budget by what its gates do, and it has many more of them. A rule "
        "that is built in holds only as well as the machine.",
        hint="Subtract in each row of the table.",
    )
    mo.vstack([mo.md("### Check yourself"), noise_answer, noise_verdict])
    return (noise_verdict,)


@app.cell(hide_code=True)
def _():
    mo.md("""
    ## What to take away

    - The cost layer writes energies into the directions of arrows, the mixer turns directions into
      lengths. One layer is two numbers and a landscape.
    - A mixer that swaps keeps the budget and needs no penalty; one that flips spends its angles on
      the penalty. On paper the first wins clearly; it also needs far more gates.
    - "Better than guessing" is the least to ask, and must be said with the shots that the search
      for the angles took.

    ## Exercises

    1. In part 1, find the angles that make the *worst* state most probable. What do they have to do
       with those for the best?
    2. Compare the landscapes of the tight and the safe penalty. In which of them do the energies of
       the blocks show at all? (Lesson (c), part 2, in another machine.)
    3. On a ring the optimum can become *less* probable with more layers, although the mean energy
       falls. Why is that no contradiction? Try `cvar=0.1` in
       `get_backend("qaoa-fixed-weight").sample(problem, p=3, mixer="ring", cvar=0.1)`: the search
       then looks at the best tenth of the shots only.
    4. `qblock show smollm2-135m-fisher --remove 4 --form landscape -b qaoa-fixed-weight --plot
       map.png` draws the landscape of a real instance. Where is the valley, beside that of part 2?
       (This is why qblock gives angles in standard units.)
    """)
    return


if __name__ == "__main__":
    app.run()
