"""The usual example of the `adapters` package on a tiny model made here; of it, the import line alone was changed."""

import tempfile

import torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

# was: from transformers.adapters import AutoModelForSequenceClassification (adapter-transformers, transformers 4)
from hubcache.train.adapters import AutoModelForSequenceClassification


def write_base(folder: str) -> str:
    """Write the tiny model that stands for bert-base-uncased."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertForSequenceClassification(BertConfig(vocab_size=50, **sizes)).save_pretrained(folder)
    return folder


def main() -> None:
    """Add, train, activate, save and load."""
    torch.set_num_threads(1)
    place = tempfile.mkdtemp()
    base = write_base(f"{place}/base")
    rows = [{"input_ids": torch.randint(5, 50, (8,)), "labels": number % 2} for number in range(32)]

    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model.add_adapter("sentiment", config="pfeiffer")
    model.train_adapter("sentiment")
    arguments = TrainingArguments(
        output_dir=f"{place}/out", learning_rate=1e-3, num_train_epochs=2, report_to="none", use_cpu=True
    )
    Trainer(model=model, args=arguments, train_dataset=rows).train()
    model.set_active_adapters("sentiment")
    model.save_adapter(f"{place}/sentiment", "sentiment")

    model.eval()
    batch = torch.stack([row["input_ids"] for row in rows])
    said = model(batch).logits
    other = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    name = other.load_adapter(f"{place}/sentiment")
    other.set_active_adapters(name)
    other.eval()
    print("restored:", torch.equal(other(batch).logits, said))
    other.set_active_adapters(None)


if __name__ == "__main__":
    main()
