"""The journal: every system call's intent before it acts, and its outcome after, on disk; what recovery and replay stand on."""
