"""Loopback servers that answer as the real hubs do; they share no code with the library under test."""
