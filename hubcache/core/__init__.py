"""The pure part: facts in, values out; no disk, network, clock, environment or random source."""
