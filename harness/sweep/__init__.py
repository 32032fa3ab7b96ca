"""A grid of runs: planned as cells, run where the machines are, gone on with at any time.

``grid``: what a user asks for. ``cells``: its product, as ordinary runs. ``folder``: what a sweep leaves on the disk.
``estimate``: what it will cost. ``attempt``: one cell as a process. ``local`` and ``cluster``: many of them.
"""
