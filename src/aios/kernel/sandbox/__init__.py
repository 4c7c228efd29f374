"""The sandbox: what a program that the kernel starts can see and take of this machine."""
