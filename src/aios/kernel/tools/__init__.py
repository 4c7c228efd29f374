"""The tool manager: what agents can do to the world, side by side and within bounds."""
