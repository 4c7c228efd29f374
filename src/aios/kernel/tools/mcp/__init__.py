"""Servers of the Model Context Protocol: their tools are tools of the kernel, and what is wrong with them stays with them."""
