"""QAOA: by circuit through Qiskit, and by exact simulation at the sizes of real models."""
