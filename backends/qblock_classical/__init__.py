"""Classical solvers: exact, annealing, tabu, descent, and the random floor."""
