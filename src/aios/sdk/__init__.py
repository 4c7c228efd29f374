"""User space: what agents are written with. Knows the abi and the errors, never the kernel.

Its public names are in `aios` itself; they are loaded when they are first used.
"""
