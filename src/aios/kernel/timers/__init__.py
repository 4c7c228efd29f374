"""Timers: programs that are started at a moment, or again and again."""
