"""The access manager: who may do what to whom. Default deny; no path around it."""
