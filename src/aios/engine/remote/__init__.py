"""Engines that live on the other side of a network connection: one file for each protocol."""
