"""Branches of processes, and processes put away to come back to: one copy on disk of what a process has, up to a call."""
