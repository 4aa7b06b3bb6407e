"""What a gin file may bind: lengths, vocabulary, optimizers and how a model is tested; it trains and tests nothing.

A gin file runs no code: an `import` in it is refused unless --module_import has named that module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gin  # type: ignore[import-untyped]  # gin-config ships no types
import torch
import transformers
from gin import config_parser

from hubcache.errors import BadConfig

SHIPPED = Path(__file__).parent / "gin"
"""The gin files of ke-t5-downstreams, which a name finds where no file of the user's has it."""

OPTIMIZERS = ("Adadelta", "Adagrad", "Adam", "AdamW", "SparseAdam", "Adamax", "ASGD", "RMSprop", "Rprop", "SGD")
_NOT_FOR_GENERATE = frozenset(("prefix",))
_MODEL_FUNCTIONS = ("forward", "generate")

for _name in OPTIMIZERS:
    gin.external_configurable(getattr(torch.optim, _name), module="torch.optim")
gin.external_configurable(transformers.Adafactor, module="transformers")


@gin.configurable(module="ke_t5.task.utils")
def get_vocabulary(vocab_name: str = "") -> str:
    """Return the repo or folder of the tokenizer; "" is the model's own (the original: ke-t5-small, always)."""
    return vocab_name


@gin.configurable(module="ke_t5.pipe")
def get_dataset(sequence_length: Mapping[str, int] | None = None) -> dict[str, int]:
    """Return the most tokens of inputs and targets. Raises: BadConfig where a gin file binds none."""
    if not sequence_length or "inputs" not in sequence_length:
        raise BadConfig(
            "no sequence length is bound",
            hint="--gin_param \"get_dataset.sequence_length={'inputs': 512, 'targets': 512}\", or a --gin_file",
        )
    return {"targets": sequence_length["inputs"], **sequence_length}


@gin.configurable(module="ke_t5.utils")
def get_optimizer(parameters: Iterator[Any], optimizer_cls: Any = None) -> Any:
    """Return the optimizer of the parameters, AdamW with its own bindings where none is bound."""
    return (optimizer_cls or gin.get_configurable("AdamW"))(parameters)


@gin.configurable(module="ke_t5.pipe.evaluation")
@dataclass(frozen=True)
class EvaluationHelper:
    """How a model is tested: by `forward`, or by `generate` with `model_kwargs` (None: the task's).

    model_input_keys is what the original gives to the model, None: input_ids alone. Here the attention mask always goes
    with them: without it what is said would depend on the padding.
    """

    model_fn: str = "forward"
    model_input_keys: Sequence[str] | None = None
    model_kwargs: Mapping[str, Any] | None = None

    @property
    def notes(self) -> list[str]:
        """What was bound and is not done."""
        told = self.model_input_keys is not None and "attention_mask" not in self.model_input_keys
        return ["EvaluationHelper.model_input_keys: the model gets attention_mask, too"] if told else []

    def generation(self, of_task: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what generate() is called with, None for forward. Raises: BadConfig for another function."""
        if self.model_fn not in _MODEL_FUNCTIONS:
            raise BadConfig(f"EvaluationHelper.model_fn={self.model_fn!r} is none of {', '.join(_MODEL_FUNCTIONS)}")
        if self.model_fn == "forward":
            return None
        told = of_task if self.model_kwargs is None else self.model_kwargs
        return {name: value for name, value in told.items() if name not in _NOT_FOR_GENERATE}


def read_bindings(files: Sequence[str], pairs: Sequence[str], imported: Sequence[str] = ()) -> None:
    """Bind what the gin files say, and then the pairs `name=value`; what was bound before is forgotten.

    `imported` are the modules that a file may import.

    Raises: BadConfig with what gin says of a name it does not know, or a file that imports.
    """
    found = [str(_found(name)) for name in files]
    try:
        for path in found:
            _check_imports(Path(path).read_text(encoding="utf-8"), imported)
        _check_imports("\n".join(pairs), imported)
        gin.clear_config()
        gin.parse_config_files_and_bindings(found, list(pairs))
    except (ValueError, TypeError, SyntaxError, OSError, AttributeError) as error:
        hint = "one `name.argument = value` a line"
        raise BadConfig(f"the gin bindings cannot be read: {error}", hint=hint) from error


def _found(name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    shipped = SHIPPED / Path(name).name
    if str(Path(name).parent) in (".", "gin") and shipped.is_file():
        return shipped
    known = ", ".join(sorted(path.name for path in SHIPPED.glob("*.gin")))
    raise BadConfig(f"there is no gin file {name}", hint=f"shipped are {known}")


def _check_imports(text: str, imported: Sequence[str]) -> None:
    """Refuse what would run code: an import that the command line has not made already, here or in an included file.

    `from __gin__` is refused as well: it makes every function of an imported module a configurable.
    """
    for statement in config_parser.ConfigParser(text, _Names()):
        if isinstance(statement, config_parser.ImportStatement) and statement.module not in imported:
            raise BadConfig(
                f"a gin file imports {statement.module}, which runs it",
                hint=f"if you trust it: --module_import {statement.module}",
            )
        if isinstance(statement, config_parser.IncludeStatement):
            # gin would look into packages, too, which imports them.
            if not Path(statement.filename).is_file():
                raise BadConfig(f"there is no gin file {statement.filename} to include")
            _check_imports(Path(statement.filename).read_text(encoding="utf-8"), imported)


class _Names(config_parser.ParserDelegate):
    """Take references and macros by name: nothing is looked up while imports are looked for."""

    def configurable_reference(self, scoped_name: str, evaluate: bool) -> Any:
        return scoped_name, evaluate

    def macro(self, name: str) -> Any:
        return name
