"""The whole kernel in a world that can be repeated: a virtual clock, a disk that fails, agents that follow a script."""
