"""The storage manager: files of agents, with versions, in the database of the kernel."""
