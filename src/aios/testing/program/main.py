"""What a simulation starts: only its name counts, for `child.py` runs a trade in its place."""

raise SystemExit("only in a simulation")
