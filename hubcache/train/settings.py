"""Every knob of a training run, typed, with defaults by task and model size; it trains nothing and imports no torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from hubcache.errors import BadConfig

ADAPTIVE_RATES = ((60e6, 5e-5), (200e6, 3e-5), (500e6, 2e-5), (math.inf, 1e-5))
"""Learning rates of encoders, by number of parameters: the larger the model, the smaller its steps."""

ADAPTER_RATE = 3e-4
"""The learning rate of adapters, which start without effect and move nothing else."""

ADAPTERS = ("lora", "ia3", "pfeiffer", "houlsby", "prompt", "prefix")
"""The kinds of adapters."""

EPOCHS = ((2_000, 10.0), (10_000, 5.0), (100_000, 3.0), (math.inf, 2.0))
"""Passes over the training rows, by their number: a small set is read more often."""

SHORT_NAMES = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "batch": "batch_size",
    "accumulation": "gradient_accumulation",
}


def knob(default: Any, told: str, *, least: float | None = None, most: float | None = None, of: Any = ()) -> Any:
    """Describe a field: its default, what it is, the range it keeps to, or the words it may be."""
    return field(default=default, metadata={"told": told, "least": least, "most": most, "of": tuple(of)})


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How a model is trained; two runs with equal settings, data and versions on a CPU give equal weights."""

    epochs: float = knob(3.0, "passes over the training rows", least=0)
    max_steps: int = knob(0, "end after so many steps whatever the epochs; 0: by epochs", least=0)
    batch_size: int = knob(16, "rows of a step and process", least=1)
    gradient_accumulation: int = knob(1, "batches that one step sums up", least=1)
    eval_batch_size: int = knob(0, "rows of an evaluation batch; 0: as many as fit a budget of tokens", least=0)
    learning_rate: float = knob(5e-5, "the highest rate", least=0)
    warmup: float = knob(0.06, "steps of rising rate; below 1 a share of all steps", least=0)
    schedule: str = knob(
        "linear", "how the rate falls", of=("linear", "cosine", "constant", "constant_with_warmup", "polynomial")
    )
    optimizer: str = knob("adamw", "the optimizer", of=("adamw", "adafactor", "sgd"))
    weight_decay: float = knob(0.01, "decay of all weights but biases and norms", least=0)
    adam_beta1: float = knob(0.9, "decay of AdamW's mean", least=0, most=1)
    adam_beta2: float = knob(0.999, "decay of AdamW's square", least=0, most=1)
    adam_epsilon: float = knob(1e-8, "AdamW's eps", least=0)
    max_grad_norm: float = knob(1.0, "clip the gradient to this norm; 0: not", least=0)
    label_smoothing: float = knob(0.0, "share of the target spread over all labels", least=0, most=1)
    max_length: int = knob(0, "tokens of an input; 0: the task's", least=0)
    target_length: int = knob(0, "tokens of a generated text; 0: the task's", least=0)
    length_grouping: bool = knob(True, "put rows of like length into a batch")
    pad_to: int = knob(1, "pad a batch to a multiple of so many tokens", least=1)
    seed: int = knob(42, "of everything that is drawn", least=0)
    precision: str = knob("auto", "auto: bf16 where the GPU has it, else fp32", of=("auto", "fp32", "bf16"))
    cuda_graphs: bool = knob(True, "on a GPU, replay the steps of small models as graphs")
    gradient_checkpointing: bool = knob(False, "compute activations twice instead of keeping them")
    freeze_backbone: bool = knob(False, "train the head alone")
    adapter: str = knob("", "train an adapter and the head alone", of=("", *ADAPTERS))
    adapter_rank: int = knob(8, "LoRA's rank; how many vectors a prompt or prefix has", least=1)
    adapter_alpha: int = knob(16, "LoRA's scale, times its rank", least=1)
    adapter_targets: str = knob("", "the linear layers of LoRA and IA3, as query,value; empty: the attention's")
    adapter_reduction: float = knob(16.0, "a layer's width by its bottleneck adapter's", least=1)
    adapter_activation: str = knob("", "of a bottleneck adapter, as relu; empty: its kind's")
    adapter_dropout: float = knob(0.0, "inside the adapter", least=0, most=1)
    evaluate: str = knob("epoch", "when the validation split is scored", of=("epoch", "steps", "no"))
    evaluate_steps: int = knob(500, "with evaluate=steps: so many steps apart", least=1)
    save: str = knob("epoch", "when to save for resuming; the best is always saved", of=("epoch", "steps", "no"))
    save_steps: int = knob(500, "with save=steps: so many steps apart", least=1)
    log_steps: int = knob(0, "steps between loss figures; 0: twenty an epoch", least=0)
    early_stopping: int = knob(0, "end after so many evaluations without a better one; 0: never", least=0)
    metric: str = knob("", "what the best checkpoint is best at; empty: the task's")
    generate: bool = knob(True, "evaluate generative tasks by generating; off: by teacher-forced tokens")
    child_tuning: str = knob("", "let only a part of the gradient through", of=("", "ChildTuning-F", "ChildTuning-D"))
    reserve_p: float = knob(0.2, "the part that Child-Tuning lets through", least=1e-9, most=1)
    distill_alpha: float = knob(0.5, "with a teacher: its share of the loss", least=0, most=1)
    distill_temperature: float = knob(2.0, "with a teacher: softens both distributions", least=1e-9)
    workers: int = knob(0, "processes that prepare batches", least=0)
    tensorboard: bool = knob(True, "write TensorBoard logs where it is installed")

    @classmethod
    def for_task(cls, kind: str, parameters: int, rows: int, *, t5: bool = False) -> TrainSettings:
        """Return the defaults for a kind of task, a model of so many parameters and a training split of so many rows.

        T5 models take a larger, constant rate: they were trained by Adafactor and barely move at an encoder's.
        """
        epochs = next(value for most, value in EPOCHS if rows < most)
        chosen = cls(epochs=epochs, learning_rate=next(rate for most, rate in ADAPTIVE_RATES if parameters < most))
        if rows >= 100_000:
            chosen = replace(chosen, batch_size=32)
        if kind == "question-answering":
            chosen = replace(chosen, epochs=min(epochs, 3.0), warmup=0.1)
        if t5:
            chosen = replace(chosen, learning_rate=3e-4, schedule="constant_with_warmup")
        if chosen.epochs > 3:
            chosen = replace(chosen, early_stopping=3)
        return chosen

    def updated(self, values: Mapping[str, Any], where: str = "the settings") -> TrainSettings:
        """Return them with some values replaced, each parsed to its field's type.

        Raises: BadConfig for a key there is none of (naming the nearest), or a value that does not fit.
        """
        return replace(self, **{(name := _known(key, where)): _parsed(name, values[key], where) for key in values})

    def updated_from(self, path: Path) -> TrainSettings:
        """Return them with the values of a YAML file, one `key: value` a line. Raises: BadConfig."""
        try:
            told = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise BadConfig(f"{path} cannot be read as YAML: {error}") from error
        if not isinstance(told, dict | None):
            raise BadConfig(f"{path} holds no settings", hint="write one `key: value` a line, as learning_rate: 3e-5")
        return self.updated({str(key): value for key, value in (told or {}).items()}, str(path))

    def updated_by(self, pairs: Iterable[str]) -> TrainSettings:
        """Return them with values from `key=value` texts, the last of a key holding. Raises: BadConfig."""
        values = {}
        for pair in pairs:
            key, equals, value = pair.partition("=")
            if not equals:
                raise BadConfig(f"{pair!r} sets nothing", hint="write it as --set learning_rate=3e-5")
            values[key.strip()] = value.strip()
        return self.updated(values, "--set")

    def told(self) -> dict[str, Any]:
        """Return every setting by name, as the record of a run keeps them."""
        return asdict(self)

    def lines(self, defaults: TrainSettings | None = None) -> list[str]:
        """Return one line a setting for a person to read; those that differ from `defaults` are starred."""
        width = max(len(one.name) for one in fields(self))
        return [
            f"{'*' if defaults and getattr(self, one.name) != getattr(defaults, one.name) else ' '}"
            f" {one.name:{width}}  {_shown(getattr(self, one.name)):12}  {one.metadata['told']}"
            for one in fields(self)
        ]


def adapter_rate(settings: TrainSettings) -> TrainSettings:
    """Return them with the learning rate that few weights in a frozen model need, unless a T5's is higher already."""
    return replace(settings, learning_rate=max(ADAPTER_RATE, settings.learning_rate))


def settings_help() -> dict[str, str]:
    """Return what each setting is, by name, for help texts."""
    return {one.name: one.metadata["told"] for one in fields(TrainSettings)}


def _known(key: str, where: str) -> str:
    names = [one.name for one in fields(TrainSettings)]
    name = SHORT_NAMES.get(key, key).replace("-", "_")
    if name in names:
        return name
    near = difflib.get_close_matches(name, [*names, *SHORT_NAMES], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise BadConfig(f"{where}: there is no setting {key!r}", hint=hint)


def _parsed(name: str, value: Any, where: str) -> Any:
    one = next(one for one in fields(TrainSettings) if one.name == name)
    kind = get_type_hints(TrainSettings)[name]
    parsed = _READERS[kind](value)
    if parsed is None:
        raise BadConfig(f"{where}: {name}={value!r} is not {_KINDS[kind]}", hint=f"{name}: {one.metadata['told']}")
    if one.metadata["of"] and parsed not in one.metadata["of"]:
        raise BadConfig(
            f"{where}: {name}={value!r} is none of {', '.join(word or repr('') for word in one.metadata['of'])}"
        )
    least, most = one.metadata["least"], one.metadata["most"]
    if (least is not None and parsed < least) or (most is not None and parsed > most):
        upper = "" if most is None else f" and at most {most}"
        raise BadConfig(f"{where}: {name}={value!r} must be at least {least}{upper}")
    return parsed


def _as_float(value: Any) -> float | None:
    # YAML 1.1 reads 3e-5 as a text.
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None


def _as_int(value: Any) -> int | None:
    number = _as_float(value)
    return int(number) if number is not None and number == int(number) else None


def _as_bool(value: Any) -> bool | None:
    return {
        "true": True,
        "yes": True,
        "on": True,
        "1": True,
        "false": False,
        "no": False,
        "off": False,
        "0": False,
    }.get(str(value).lower())


def _as_text(value: Any) -> str | None:
    # YAML 1.1 reads a bare no and off as False: two of our words are `no`.
    if value is False:
        return "no"
    return "" if value is None else value if isinstance(value, str) else None


_READERS: dict[Any, Any] = {float: _as_float, int: _as_int, bool: _as_bool, str: _as_text}
_KINDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a word"}


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else repr(value) if value == "" else str(value)
