"""The kernel: schedules, checks, journals and accounts for every system call."""
