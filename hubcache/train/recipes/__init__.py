"""Published runs to repeat, by name; no run is started here."""

from hubcache.train.recipes.loader import RunFile, read_run_files, run_file, run_files

__all__ = ["RunFile", "read_run_files", "run_file", "run_files"]
