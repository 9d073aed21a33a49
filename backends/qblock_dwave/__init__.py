"""D-Wave backends: the Leap quantum and hybrid solvers, and a local emulation of an annealer."""
