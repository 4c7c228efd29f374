"""The tools that come with the kernel. Each makes system calls as its caller, so it can do nothing that the caller cannot."""
