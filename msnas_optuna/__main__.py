"""python -m msnas_optuna."""

from msnas_optuna.cli import main

main()
