"""Studies: grids over datasets, backbones, heads and seeds that answer a stated question.

`NAME.toml` is a study that ships, `NAME.py` beside it reads its answer off the runs, where that takes more than ranks
and verdicts. `engine` expands, runs and reports any of them, a user's own included.
"""
