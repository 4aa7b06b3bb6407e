"""The model that an adapter was trained over, named by digest: written with the adapter and compared on loading."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers.utils.hub import try_to_load_from_cache

from hubcache.core.digests import new_hasher
from hubcache.errors import BadConfig, UsageError
from hubcache.localfile import hash_file

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True, slots=True)
class Base:
    """A base model: a repo or path, its commit ("" where it has none), and the sha256 of its weights ("": unknown).

    The sha256 is that of the weight file; of several, that of their names and sha256s.
    """

    reference: str = ""
    commit: str = ""
    weights_sha256: str = ""

    @property
    def text(self) -> str:
        """The base as a reference to type."""
        return f"{self.reference}@{self.commit}" if self.commit else self.reference


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """What adapter_config.json says: the adapter's name, its configuration, its base, the head's modules and labels.

    `told` is the configuration: a bottleneck adapter's (with `adapter`), or peft's own (with `peft_type`).
    """

    name: str
    base: Base
    head: tuple[str, ...]
    told: dict[str, Any]
    labels: tuple[str, ...] = ()

    @property
    def is_peft(self) -> bool:
        """Tell whether it is one of peft's."""
        return "peft_type" in self.told

    @property
    def is_prompt(self) -> bool:
        """Tell whether it is a prompt or a prefix."""
        return str(self.told.get("peft_type")) in {"PROMPT_TUNING", "PREFIX_TUNING"}

    def write(self, folder: Path) -> None:
        """Write it; peft reads its own part of it."""
        ours = {"name": self.name, "base": asdict(self.base), "head": list(self.head), "labels": list(self.labels)}
        text = json.dumps(self.told | {"hubcache": ours}, indent=1, sort_keys=True)
        (folder / CONFIG).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> AdapterFile:
        """Read what write wrote, or what peft did, which names no digest. Raises: BadConfig."""
        try:
            told = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            ours = told.pop("hubcache", {})
            head = tuple(ours.get("head", told.get("modules_to_save") or ()))
            base = Base(**ours.get("base", {"reference": told.get("base_model_name_or_path") or ""}))
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise BadConfig(f"{folder} holds no adapter that can be read: {error}") from error
        return cls(str(ours.get("name", "default")), base, head, told, tuple(ours.get("labels", ())))


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder holds an adapter."""
    return (folder / CONFIG).is_file()


def base_of_folder(folder: Path, reference: str = "", commit: str = "") -> Base:
    """Name the model in a folder, reading its weights once."""
    return Base(reference or str(folder), commit, weights_sha256(folder))


def base_of_model(model: Any) -> Base:
    """Name the model that from_pretrained loaded: a folder, or a commit of the cache; else it has no digest."""
    name = str(getattr(model, "name_or_path", "") or "")
    if name and Path(name).is_dir():
        return base_of_folder(Path(name))
    commit = getattr(model.config, "_commit_hash", None) or ""
    for file in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin") if name and commit else ():
        found = try_to_load_from_cache(name, file, revision=commit)
        if isinstance(found, str):
            return base_of_folder(Path(found).parent, name, commit)
    return Base(name, commit)


def check_base(recorded: Base, found: Base) -> None:
    """Refuse a base that is not the adapter's. Raises: UsageError."""
    if recorded.weights_sha256 and recorded.weights_sha256 != found.weights_sha256:
        raise UsageError(
            f"the adapter was trained over {recorded.text} (weights sha256 {recorded.weights_sha256[:12]}…), this is"
            f" {found.text or 'a model without a digest'} ({found.weights_sha256[:12] or 'unknown'}…)",
            hint=f"hubcache pull {recorded.text}, or say that this base is meant: --base REF, any_base=True",
        )


def weights_sha256(folder: Path) -> str:
    """Return the digest of a folder's weights, "" where there are none."""
    files = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    digests = {file.name: _sha256(file) for file in files}
    if len(digests) < 2:
        return next(iter(digests.values()), "")
    return hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in digests.items()).encode()).hexdigest()


def _sha256(file: Path) -> str:
    hasher = new_hasher("sha256", file.stat().st_size)
    hash_file(file, hasher)
    return hasher.hexdigest()
