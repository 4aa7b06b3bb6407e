"""SOFA's tutorial, Child-Tuning with a Trainer: one import line changed; tests/test_compat_sofa_tutorial.py runs it."""

import sys

import torch
from transformers import Trainer, TrainingArguments

import hubcache.compat.sofa as sofa
from hubcache.compat.sofa import SbertForSequenceClassification, SbertTokenizer, apply_child_tuning_to_trainer

sofa.environ("huggingface")
model_path, output_dir, mode = sys.argv[1:]

tokenizer = SbertTokenizer.from_pretrained(model_path)
model = SbertForSequenceClassification.from_pretrained(model_path, num_labels=2)


class Reviews(torch.utils.data.Dataset):
    """Twelve sentences with a label."""

    def __init__(self, lines):
        self.rows = [line.split("\t") for line in lines]

    def __len__(self):
        """Return the number of rows."""
        return len(self.rows)

    def __getitem__(self, index):
        """Return one row as the model reads it."""
        text, label = self.rows[index]
        return {**tokenizer(text, padding="max_length", truncation=True, max_length=16), "labels": int(label)}


trainer = Trainer(
    model=model,
    args=TrainingArguments(output_dir=output_dir, num_train_epochs=1, per_device_train_batch_size=4, save_steps=1),
    train_dataset=Reviews(["the movie was great\t1", "the plot is slow\t0", "a great plot\t1"] * 4),
)
before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
apply_child_tuning_to_trainer(trainer, mode=mode, reserve_p=0.3)
trainer.train()
encoder = [name for name in before if "layer" in name]
moved = sum(int((model.get_parameter(name) != before[name]).sum()) for name in encoder)
print(f"moved {moved / sum(before[name].numel() for name in encoder):.2f} of the encoder")
