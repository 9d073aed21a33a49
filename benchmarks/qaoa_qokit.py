"""Seconds of one p = 1 evaluation by QOKit, for qaoa.py; runs in QOKit's own environment.

python qaoa_qokit.py COSTS.npy REPEATS  ->  one JSON document
"""

import json
import sys
import time

import numpy as np
from qokit.fur import choose_simulator, get_available_simulator_names

costs = np.load(sys.argv[1])
name = next(n for n in ("c", "python") if n in get_available_simulator_names("x"))
simulator = choose_simulator(name)(int(np.log2(len(costs))), costs=costs)
seconds = []
for _ in range(int(sys.argv[2]) + 1):
    started = time.perf_counter()
    state = simulator.simulate_qaoa([0.3], [0.2])
    energy = float(simulator.get_expectation(state))
    seconds.append(time.perf_counter() - started)
json.dump({"simulator": name, "seconds": min(seconds[1:]), "energy": energy}, sys.stdout)
