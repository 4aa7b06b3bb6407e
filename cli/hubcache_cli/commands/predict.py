"""`hubcache predict`: what a cached model says to texts, a JSON line each."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from hubcache.app.predicting import open_pipeline, predictions
from hubcache.errors import UsageError
from hubcache_cli.options import CacheDir, Quiet, complete_cached, make_local_app
from hubcache_cli.output import note, print_json
from hubcache_cli.training import typed_pairs

AUTO = "auto"


def run(
    task: Annotated[str, typer.Argument(metavar="TASK", help="ner, question-answering, summarization, …")],
    model: Annotated[
        str,
        typer.Argument(metavar="[MODEL]", help="A cached reference or a folder; auto.", autocompletion=complete_cached),
    ] = AUTO,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="[TEXT]...", help="The texts; - reads lines from stdin.")
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Lines of text, or of JSON (.jsonl).")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="The pipeline's options: top_k=3.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="What zero-shot-classification chooses from: a,b,c.")
    ] = None,
    context: Annotated[str | None, typer.Option("--context", help="The text that the questions are on.")] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=0, help="Rows of a batch; 0 by the texts' length.")
    ] = 0,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda:1; by default what is there.")] = None,
    backend: Annotated[
        str, typer.Option("--backend", metavar="torch|onnx", help="What computes; or an ONNX file of the repo.")
    ] = "torch",
    # main() reads it: errors become JSON, results are in any case.
    _: Annotated[bool, typer.Option("--json", help="Errors as JSON, too; results always are.")] = False,
    quiet: Quiet = False,
    cache_dir: CacheDir = None,
) -> None:
    """Let a cached model answer, offline: a line of JSON for each text, in order.

    The model auto is a cached one that fits the task. A line that is a JSON object or string is read as JSON:
    question-answering takes {"question": …, "context": …}.
    """
    options: dict[str, Any] = typed_pairs(option, "--set")
    if labels is not None:
        options["candidate_labels"] = _labels(labels)
    if batch_size:
        options["batch_size"] = batch_size
    if not texts and file is None:
        raise UsageError("there is no text", hint="give texts, - for stdin, or --file F")
    say = (lambda _: None) if quiet else note
    with nullcontext() if file is None else _opened(file) as lines:
        app = make_local_app(cache_dir)
        pipe = open_pipeline(app, task, None if model == AUTO else model, device=device, say=say, backend=backend)
        for result in predictions(pipe, _inputs(texts or (), lines, context), options):
            print_json(result)
            print(end="", flush=True)


def _labels(text: str) -> list[str]:
    found = [label.strip() for label in text.split(",")]
    if not all(found):
        raise UsageError(f"a label is empty in {text!r}", hint="--labels sports,politics")
    return found


def _opened(file: Path) -> Any:
    try:
        return file.open(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error


def _lines(file: Any, name: str) -> Iterator[str]:
    """The lines that are not blank."""
    if file is None:
        raise UsageError(f"{name} is closed")
    try:
        yield from (line for line in file if line.strip())
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is no text in UTF-8: {error.reason}") from error


def _inputs(texts: Iterable[str], file: Any, context: str | None) -> Iterator[Any]:
    for text in texts:
        if text == "-":
            yield from (_asked(_parsed(line), context) for line in _lines(sys.stdin, "stdin"))
        else:
            yield _asked(text, context)
    if file is not None:
        yield from (_asked(_parsed(line), context) for line in _lines(file, file.name))


def _asked(row: Any, context: str | None) -> Any:
    """Of a row as data sets have them, its text, its pair, or its question and context; all else is no one's input."""
    if isinstance(row, dict):
        found = row if context is None or "context" in row else {**row, "context": context}
        for names in (("question", "context"), ("text", "text_pair")):
            if all(isinstance(found.get(name), str) for name in names):
                return {name: found[name] for name in names}
        return found["text"] if isinstance(found.get("text"), str) else row
    return row if context is None or not isinstance(row, str) else {"question": row, "context": context}


def _parsed(line: str) -> Any:
    """A line of text may begin with a brace or a quote, too: what is no JSON is text."""
    text = line.rstrip("\r\n")
    if text[:1] in {"{", '"'}:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
