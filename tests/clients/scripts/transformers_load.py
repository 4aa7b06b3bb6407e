"""transformers loads a classifier of org/bert by each of its ways, and one in shards of org/sharded."""

import torch
from asking import tell
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, pipeline

SENTENCE = "a cache keeps what was pulled"


def logits(name):
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    with torch.no_grad():
        return model.eval()(**tokenizer(SENTENCE, return_tensors="pt")).logits.tolist()


def classified():
    [answer] = pipeline("text-classification", model="org/bert", top_k=None)([SENTENCE])
    return {row["label"]: row["score"] for row in answer}


tell(
    "transformers",
    config=lambda: AutoConfig.from_pretrained("org/bert").hidden_size,
    tokenizer=lambda: AutoTokenizer.from_pretrained("org/bert")(SENTENCE)["input_ids"],
    model=lambda: logits("org/bert"),
    pipeline=classified,
    sharded=lambda: logits("org/sharded"),
)
