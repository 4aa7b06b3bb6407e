"""SOFA's tutorial, a pipeline of one's own: the import lines changed; tests/test_compat_sofa_tutorial.py runs it."""

import json
import sys

from transformers import AutoModelForSequenceClassification, pipeline

import hubcache.compat.sofa as sofa
from hubcache.compat.sofa.utils import InferenceBase, inject_pipeline

sofa.environ("huggingface")


class MyPipeline(InferenceBase):
    """Tokenise, classify, name the label."""

    def preprocess(self, x, **kwargs):
        """Return what the model reads."""
        return self.tokenizer(x, return_tensors="pt")

    def predict(self, x, **kwargs):
        """Run the model."""
        return self.model(**x)

    def postprocess(self, x, **kwargs):
        """Return the label of the highest logit, in the words of the call."""
        return {"label": self.model.config.id2label[int(x.logits.argmax())], "asked": kwargs.get("asked", "")}


inject_pipeline("my-pipeline", MyPipeline, AutoModelForSequenceClassification)
classify = pipeline("my-pipeline", sys.argv[1])
print(json.dumps([classify("the movie was great", asked="once"), classify(["a slow plot", "great"])]))
