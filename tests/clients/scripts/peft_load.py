"""peft loads the adapter org/lora over the model that it names."""

import torch
from asking import tell
from peft import AutoPeftModelForSequenceClassification, PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

SENTENCE = "a cache keeps what was pulled"


def logits(model):
    batch = AutoTokenizer.from_pretrained("org/bert")(SENTENCE, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits.tolist()


def over_base():
    base = AutoModelForSequenceClassification.from_pretrained("org/bert", num_labels=3)
    return logits(PeftModel.from_pretrained(base, "org/lora"))


tell(
    "peft",
    adapter=over_base,
    auto=lambda: logits(AutoPeftModelForSequenceClassification.from_pretrained("org/lora", num_labels=3)),
)
