"""The kernel on a socket: the native protocol on a Unix socket, HTTP on loopback TCP."""
