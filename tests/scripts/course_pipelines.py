"""A course's first chapter, each pipeline once: the import line alone was changed; tests/test_course.py runs it."""

# was: from transformers import pipeline
from hubcache import pipeline

classifier = pipeline("sentiment-analysis")
print(classifier("We waited all winter for a course like this."))
print(classifier(["We waited all winter for a course like this.", "I cannot stand this!"]))

classifier = pipeline("zero-shot-classification")
print(classifier("A lecture on how transformers read", candidate_labels=["education", "politics", "business"]))

generator = pipeline("text-generation")
print(generator("In this lesson we show you"))

generator = pipeline("text-generation", model="distilbert/distilgpt2")
print(generator("In this lesson we show you", max_length=30, num_return_sequences=2))

unmasker = pipeline("fill-mask")
print(unmasker("You will learn what <mask> models can do.", top_k=2))

ner = pipeline("ner", grouped_entities=True)
print(ner("Ada Lovelace is my name and I work with Charles Babbage in London."))

question_answerer = pipeline("question-answering")
print(question_answerer(question="Where do I work?", context="Ada is my name and I work in London with Charles."))

summarizer = pipeline("summarization")
print(
    summarizer(
        """
    Fewer people build bridges than in our parents' time, and more of them write programs. The schools teach
    theory where they once taught practice, and the builders of other countries have caught up.
    """,
        max_length=40,
        min_length=5,
    )
)

translator = pipeline("translation", model="Helsinki-NLP/opus-mt-fr-en")
print(translator("Ce cours est fait par des gens de Paris."))

extractor = pipeline("feature-extraction")
print(extractor("A short text."))
