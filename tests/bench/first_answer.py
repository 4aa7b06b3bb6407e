"""From the start of `hubcache predict` to its first answer, and a process that imports the same model's classes alone.

Both are whole processes and take turns; the model is a tiny one, so that what is measured is what is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.bench import measure
from tests.bench.measure import HUBCACHE, Run, Target

WALL_TO_IMPORT = 1.2
BARE = "import torch; from transformers import BertForSequenceClassification, BertTokenizerFast"
MAKE = """
import sys
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer
words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film"])}
sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
BertForSequenceClassification(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(sys.argv[1])
BertTokenizer(vocab=words, model_max_length=512).save_pretrained(sys.argv[1])
"""


def main() -> None:
    """Run the benchmark and print its line."""
    arguments = measure.parser(__doc__, runs=7).parse_args()
    with measure.scratch(arguments.dir) as folder:
        environ = prepared(folder)

        def predict(_: Path) -> Run:
            return measure.run([HUBCACHE, "predict", "text-classification", "bench/tiny", "good film"], environ)

        def bare(_: Path) -> Run:
            return measure.run([sys.executable, "-c", BARE], environ)

        predict(folder)
        bare(folder)
        measured = measure.alternate({"hubcache": predict, "import": bare}, runs=arguments.runs, place=arguments.dir)
    compared = measure.ratios(measured["hubcache"], measured["import"], "import")
    targets = {"wall_to_import": Target(compared["wall_to_import"], WALL_TO_IMPORT)}
    sizes = {"runs": arguments.runs}
    measure.report("first_answer", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


def prepared(folder: Path) -> dict[str, str]:
    """Put the model into a cache; return the environment that both run in, offline and on one thread."""
    offline = {"HF_HUB_OFFLINE": "1", "XDG_STATE_HOME": str(folder / "state"), "OMP_NUM_THREADS": "1"}
    environ = measure.environment(folder) | offline
    measure.run([sys.executable, "-c", MAKE, str(folder / "tiny")], environ)
    measure.run([HUBCACHE, "pull", str(folder / "tiny"), "--as", "bench/tiny"], environ)
    return environ


if __name__ == "__main__":
    main()
