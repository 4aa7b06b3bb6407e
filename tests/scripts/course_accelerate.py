"""A course's third chapter, the loop with accelerate: nothing was changed; tests/test_course.py runs it."""

import sys

import torch
from accelerate import Accelerator
from datasets import load_dataset
from torch.optim import AdamW
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, get_scheduler

raw_datasets = load_dataset("json", data_files={"train": sys.argv[1], "validation": sys.argv[2]})
checkpoint = "google-bert/bert-base-uncased"
tokenizer = AutoTokenizer.from_pretrained(checkpoint)


def tokenize_function(example):
    """Tokenise pairs of sentences."""
    return tokenizer(example["sentence1"], example["sentence2"], truncation=True)


tokenized_datasets = raw_datasets.map(tokenize_function, batched=True)
tokenized_datasets = tokenized_datasets.remove_columns(["sentence1", "sentence2"])
tokenized_datasets = tokenized_datasets.rename_column("label", "labels")
tokenized_datasets.set_format("torch")
data_collator = DataCollatorWithPadding(tokenizer=tokenizer)

accelerator = Accelerator()
model = AutoModelForSequenceClassification.from_pretrained(checkpoint, num_labels=2)
optimizer = AdamW(model.parameters(), lr=3e-5)
train_dl, eval_dl, model, optimizer = accelerator.prepare(
    DataLoader(tokenized_datasets["train"], shuffle=True, batch_size=8, collate_fn=data_collator),
    DataLoader(tokenized_datasets["validation"], batch_size=8, collate_fn=data_collator),
    model,
    optimizer,
)

num_epochs = 2
num_training_steps = num_epochs * len(train_dl)
lr_scheduler = get_scheduler("linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=num_training_steps)
progress_bar = tqdm(range(num_training_steps))
model.train()
for _ in range(num_epochs):
    for batch in train_dl:
        outputs = model(**batch)
        loss = outputs.loss
        accelerator.backward(loss)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        progress_bar.update(1)

model.eval()
right = 0
for batch in eval_dl:
    with torch.no_grad():
        outputs = model(**batch)
    predictions, labels = accelerator.gather_for_metrics((outputs.logits.argmax(dim=-1), batch["labels"]))
    right += int((predictions == labels).sum())
print({"steps": progress_bar.n, "lr": lr_scheduler.get_last_lr()[0], "loss": loss.item(),
       "accuracy": right / len(tokenized_datasets["validation"])})  # fmt: skip
