"""What pipelines raise over an input or option, as hubcache's error for commands; scripts see the errors themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.pipelines.base import PipelineException

from hubcache.errors import UsageError

# What transformers, tokenizers and torch are seen to raise over options and texts; all else is a defect.
REFUSALS = (PipelineException, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError)


@contextmanager
def refused() -> Iterator[None]:
    """Raise UsageError, with the first line of what was said, for an input or option that a pipeline refuses."""
    try:
        yield
    except REFUSALS as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"the pipeline refused: {said}") from error
