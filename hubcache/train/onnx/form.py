"""Which form an exported model takes, as options say it; nothing is exported here, and no torch is needed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OnnxForm:
    """The form of a model's graphs.

    `task` names the head, None takes the model's own; `opset` None is the exporter's. `prune` is the part of the
    weights that goes, `structure` where ("2:4"); `quantize` is dynamic or static. `integer` asks for integer operators
    in place of a trained quantisation.
    """

    task: str | None = None
    opset: int | None = None
    external_data: bool = False
    integer: bool = False
    prune: float | None = None
    structure: str | None = None
    quantize: str | None = None


PLAIN = OnnxForm()
"""Float graphs of the model's own head."""
