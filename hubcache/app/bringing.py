"""What a run needs and the cache lacks, pulled before it begins; what is cached is asked of nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from hubcache.app.progress import TransferProgress
from hubcache.app.training import TEACHER_WORDS, TrainRequest, find_folder
from hubcache.app.usecases import PullRequest, pull
from hubcache.core.artifact import Kind
from hubcache.errors import HubcacheError, OfflineError
from hubcache.train.tasks import load_task

if TYPE_CHECKING:
    from hubcache.app.compose import App


def bring(app: App, request: TrainRequest, *, bars: bool, say: Callable[[str], None]) -> None:
    """Pull a fine-tuning's model, teacher, recipe and data set, as far as they are not here.

    Raises: HubcacheError, as pull does.
    """
    for text, kind in _named(request):
        if not _is_here(app, text, kind):
            progress = TransferProgress(text, bar=bars)
            try:
                pull(app, PullRequest(text, kind=kind), progress=progress, notify=say)
            finally:
                progress.close()
            say(f"pulled {text}: {progress.summary()}")


def _named(request: TrainRequest) -> Iterable[tuple[str, Kind | None]]:
    words = (request.model, request.teacher, request.recipe)
    yield from ((text, None) for text in words if text and text not in TEACHER_WORDS)
    data = request.data.source or load_task(request.task).dataset
    if data and not Path(data).expanduser().exists():
        yield data, "dataset"


def _is_here(app: App, text: str, kind: Kind | None) -> bool:
    """Tell whether nothing is to be pulled; what is no reference at all is for the run itself to refuse."""
    try:
        find_folder(app, text, kind=kind)
    except OfflineError:
        return False
    except HubcacheError:
        return True
    return True
