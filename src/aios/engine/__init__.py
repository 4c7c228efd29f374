"""Engines: a conversation in, tokens out; they know no agent."""
