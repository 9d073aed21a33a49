"""`python -m qblock` is the command line."""

from qblock.cli import main

main()
