"""Benchmarks against the official client, each a script that prints one line of JSON."""
