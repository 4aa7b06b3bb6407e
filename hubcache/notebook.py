"""Whether a notebook shows what this process says, and the progress bar that suits it; it counts nothing."""

from __future__ import annotations

import sys
from typing import Any

_KERNEL_SHELL = "ZMQInteractiveShell"


def is_notebook() -> bool:
    """Tell whether this process is a notebook's kernel, whose page draws HTML and widgets."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return type(shell).__name__ == _KERNEL_SHELL


def shows_bars() -> bool:
    """Tell whether a progress bar would be seen: on a terminal, or in a notebook."""
    return sys.stderr.isatty() or is_notebook()


def new_bar(**options: Any) -> Any:
    """Make a tqdm bar: a notebook's widget where there is one (tqdm.auto), else a line on stderr.

    A `bar_format` is for a terminal's columns; a widget keeps its own.
    """
    if is_notebook():
        import warnings

        from tqdm import TqdmExperimentalWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmExperimentalWarning)
            from tqdm.auto import tqdm as widget
        return widget(**{**options, "bar_format": None, "dynamic_ncols": False})
    from tqdm import tqdm  # 45 ms that only who sees a bar pays

    return tqdm(file=sys.stderr, **options)


def set_total(bar: Any, total: float) -> None:
    """Change what a bar counts to; a widget keeps a maximum of its own."""
    bar.total = total
    container = getattr(bar, "container", None)
    if container is not None:
        container.children[1].max = total
