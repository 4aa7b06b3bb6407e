"""What is known of a repo beyond its files: tags, dates, who may have it; where that was read is not its business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class About:
    """One repo's record; what is not known is empty. Times are in unix seconds.

    Attributes:
        hub: the scheme it was pulled by (hf, ms, zoo, http, file), "" where nothing tells: huggingface_hub wrote it.
        private, gated: as the hub told; a card that asks for conditions counts as gated.
        card: the front matter of README.md.
        config: model_type and architectures of config.json.
    """

    hub: str = ""
    private: bool = False
    gated: bool | str = False
    created: float | None = None
    modified: float | None = None
    downloads: int = 0
    likes: int = 0
    tags: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    library: str | None = None
    sdk: str | None = None
    card: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def is_local(self) -> bool:
        """Whether the Hub has no business with its name: it was made here, or came from elsewhere."""
        return self.hub not in {"", "hf"}
