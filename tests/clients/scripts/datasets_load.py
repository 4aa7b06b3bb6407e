"""datasets loads files of rows as they are published, whole and as a stream."""

from asking import tell
from datasets import load_dataset


def rows(repo, **how):
    return [dict(row) for row in load_dataset(repo, split="train", **how)]


tell(
    "datasets",
    csv=lambda: rows("org/csv"),
    parquet=lambda: rows("org/parquet"),
    configured=lambda: rows("org/configured", name="small"),
    splits=lambda: sorted(load_dataset("org/csv")),
)
