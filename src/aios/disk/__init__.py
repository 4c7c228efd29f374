"""Bytes that outlive us: a database with one writer, and blobs by their content. Knows no agent."""
