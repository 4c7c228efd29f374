"""Egress: the one way from a sandbox, and from `http_fetch`, to the network, with what may pass."""
