"""One command a module, each with a function `run`."""
