"""Comparisons of solvers: planned, run, stored, judged and reported.

>>> from qblock.study.compare import compare, comparison_table      # one problem
>>> from qblock.study.plan_file import load_plan                    # many, from a TOML file
>>> from qblock.study.store import Store
>>> from qblock.study.execute import execute, local_workers
>>> from qblock.study.analysis import analyse, summary
>>> with Store("study.db") as store, local_workers() as workers:    # doctest: +SKIP
...     execute(load_plan("plan.toml"), store, workers)
...     print(summary(analyse(store)))
"""
