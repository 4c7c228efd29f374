"""Approvals: a human is asked before what cannot be undone."""
