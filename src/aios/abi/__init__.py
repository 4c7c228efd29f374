"""What crosses the line between agents and the kernel: data only, no I/O."""
