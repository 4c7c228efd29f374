"""The audit log: what was done, by whom, in a chain that shows when somebody has changed it."""
