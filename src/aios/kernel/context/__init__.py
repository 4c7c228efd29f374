"""The context manager: virtual memory for the contexts of agents."""
