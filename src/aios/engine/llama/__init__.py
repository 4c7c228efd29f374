"""The embedded engine: llama.cpp in this process, one thread that owns it."""
