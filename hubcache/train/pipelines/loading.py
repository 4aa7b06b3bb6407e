"""transformers.pipeline()'s arguments of loading, told from the pipeline's own options; nothing is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hubcache.errors import UsageError

UNREAD = frozenset({"use_fast", "token", "use_auth_token", "device_map"})
"""What has no meaning for a model that is cached, on the one device that is there."""
OF_OTHERS = ("config", "feature_extractor", "image_processor", "processor", "pipeline_class", "trust_remote_code")
"""What would load something else than the cached model and its tokenizer."""


@dataclass(frozen=True, slots=True)
class Loading:
    """The revision and type of numbers that were asked for, and the options that are the pipeline's own."""

    revision: str | None
    dtype: Any
    options: dict[str, Any]


def split(given: Mapping[str, Any]) -> Loading:
    """Tell the arguments apart.

    Raises:
        UsageError: for what this cannot do, as code of the repo's own.
    """
    options = {name: value for name, value in given.items() if name not in UNREAD}
    for name in OF_OTHERS:
        if options.pop(name, None):
            raise UsageError(f"{name} is not taken: a pipeline is made of a cached model and its tokenizer")
    framework = options.pop("framework", None)
    if framework not in (None, "pt"):
        raise UsageError(f"framework {framework!r} is not here", hint="leave it out: torch is")
    model_options = dict(options.pop("model_kwargs", None) or {})
    types = [model_options.pop(name, None) for name in ("torch_dtype", "dtype")]
    types += [options.pop(name, None) for name in ("torch_dtype", "dtype")]
    if model_options:
        raise UsageError(f"model_kwargs {', '.join(sorted(model_options))} are not taken")
    dtype = next((each for each in types if each not in (None, "auto")), None)
    return Loading(options.pop("revision", None), dtype, options)
