"""Records as benchmarks publish them, made into rows: SQuAD's nesting, CLUE's marks and gaps, NIKL's documents.

A layout gets all records of a split and returns rows; one that are rows already it leaves as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from hubcache.errors import UsageError
from hubcache.train.tasks.nearest import nearest
from hubcache.train.tasks.task import Layout, Task
from hubcache.train.tasks.template import Row

IMPOSSIBLE = "impossible"
_IDIOM = re.compile(r"#idiom\d+#")
_QUESTIONS = {
    "cause": ("What was the cause?", "这是什么原因造成的？"),
    "effect": ("What was the effect?", "这造成了什么结果？"),
}


def laid_out(task: Task, rows: list[Row]) -> list[Row]:
    """Return the rows of a task's layout. Raises: UsageError for an unknown layout, or a record of another."""
    layout = _function(task.layout, task.name)
    if layout is None:
        return rows
    try:
        return layout(rows)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        name = task.layout if isinstance(task.layout, str) else task.layout.__name__
        raise UsageError(
            f"{task.name}: a record is not laid out as {name}: {type(error).__name__}: {error}",
            hint="give rows with the columns " + ", ".join((*task.columns, *task.label_columns)),
        ) from error


def questions(rows: list[Row]) -> list[Row]:
    """Flatten SQuAD's articles (paragraphs, qas) into a row a question; answers become {text: [], answer_start: []}."""
    return [flat for row in rows for flat in (_article(row) if "paragraphs" in row else [_question(row)])]


def answers_as_text(rows: list[Row]) -> list[Row]:
    """Add `answer`, the first accepted one or "impossible", and `accepted`, all of them."""
    return [_with_answer(row) if "answers" in row else row for row in questions(rows)]


def keywords(rows: list[Row]) -> list[Row]:
    """CSL: write the keywords as one text."""
    return [{**row, "keywords": "；".join(_listed(row["keyword"]))} for row in rows]


def pronoun_and_noun(rows: list[Row]) -> list[Row]:
    """CLUEWSC: put `_` around the noun and `[ ]` around the pronoun."""
    return [{**row, "text": _marked(row["text"], row["target"])} for row in rows]


def cluener(rows: list[Row]) -> list[Row]:
    """CLUENER: make a tag a character of the entities' places, whose ends are inclusive."""
    return [row if "ner_tags" in row else {**row, **_character_tags(row)} for row in rows]


def c3(rows: list[Row]) -> list[Row]:
    """C3: make a row a question, its choices behind the question, the text being the dialogue."""
    return [made for row in rows for made in (_dialogue(row) if "record" in row or "context" in row else [row])]


def chid(rows: list[Row]) -> list[Row]:
    """CHID: make a row a gap, with the text around it and the candidates."""
    return [made for row in rows for made in (_gaps(row) if "content" in row else [row])]


def cause_or_effect(rows: list[Row]) -> list[Row]:
    """COPA and XCOPA: put the question behind the premise; two choices."""
    return [
        {**row, "text": f"{row['premise']} {_asked(row)}", "choices": [row["choice1"], row["choice2"]]} for row in rows
    ]


def nikl_entities(rows: list[Row]) -> list[Row]:
    """NIKL's named entities: make rows of its documents' sentences; an entity's label is its name."""
    return [made for row in rows for made in (_sentences(row) if "sentence" in row and "form" not in row else [row])]


def nikl_mentions(rows: list[Row]) -> list[Row]:
    """NIKL's coreferences: join a document's sentences and count its mentions from the document's beginning."""
    return [_mentions(row) if isinstance(row.get("sentence"), list) else row for row in rows]


LAYOUTS: Mapping[str, Callable[[list[Row]], list[Row]]] = {
    layout.__name__: layout
    for layout in (
        *(questions, answers_as_text, keywords, pronoun_and_noun, cluener, c3, chid, cause_or_effect),
        *(nikl_entities, nikl_mentions),
    )
}


def _function(layout: Layout, task: str) -> Callable[[list[Row]], list[Row]] | None:
    if not isinstance(layout, str):
        return layout
    if layout and layout not in LAYOUTS:
        raise UsageError(f"task {task}: there is no layout {layout!r}", hint=nearest(layout, LAYOUTS))
    return LAYOUTS[layout] if layout else None


def _article(article: Row) -> Iterator[Row]:
    for paragraph in article["paragraphs"]:
        for asked in paragraph["qas"]:
            row = {"context": paragraph["context"], "title": article.get("title", ""), **asked}
            yield _question(row)


def _question(row: Row) -> Row:
    answers = row.get("answers")
    if not isinstance(answers, list):
        return row
    texts = [answer["text"] for answer in answers]
    return {**row, "answers": {"text": texts, "answer_start": [answer["answer_start"] for answer in answers]}}


def _with_answer(row: Row) -> Row:
    answers = row["answers"]
    texts = _listed(answers["text"] if isinstance(answers, dict) else answers)
    impossible = bool(row.get("is_impossible")) or not texts
    return {**row, "answer": IMPOSSIBLE if impossible else texts[0], "accepted": [] if impossible else texts}


def _listed(value: Any) -> list[str]:
    return [str(member) for member in value] if isinstance(value, list | tuple) else [str(value)]


def _marked(text: str, target: Mapping[str, Any]) -> str:
    marks = [
        (target["span1_index"], target["span1_text"], "_", "_"),
        (target["span2_index"], target["span2_text"], "[", "]"),
    ]
    for begin, word, opening, closing in sorted(marks, reverse=True):
        end = begin + len(word)
        text = f"{text[:begin]}{opening}{text[begin:end]}{closing}{text[end:]}"
    return text


def _character_tags(row: Row) -> Row:
    tags = ["O"] * len(row["text"])
    for kind, surfaces in row.get("label", {}).items():
        for places in surfaces.values():
            for begin, last in places:
                tags[begin : last + 1] = [f"B-{kind}", *[f"I-{kind}"] * (last - begin)]
    tagged: Row = {"tokens": list(row["text"])}
    return {**tagged, "ner_tags": tags} if "label" in row else tagged


def _dialogue(row: Row) -> Iterator[Row]:
    lines, asked, name = row["record"] if "record" in row else (row["context"], [row], row.get("id", ""))
    for number, one in enumerate(asked):
        choices = list(one["choice"])
        answer = one.get("answer")
        yield {
            "id": f"{name}-{number}",
            "text": "\n".join(_listed(lines)),
            "choices": [f"{one['question']} {choice}" for choice in choices],
            "label": choices.index(answer) if answer in choices else -1,
        }


def _gaps(row: Row) -> Iterator[Row]:
    answers = row.get("answers", {})
    for passage in _listed(row["content"]):
        for gap in _IDIOM.findall(passage):
            text = _IDIOM.sub("____", passage.replace(gap, "[MASK]"))
            yield {"id": gap, "text": text, "choices": list(row["candidates"]), "label": answers.get(gap, -1)}


def _asked(row: Row) -> str:
    english, chinese = _QUESTIONS[row["question"]]
    return chinese if re.search(r"[\u4e00-\u9fff]", row["premise"]) else english


def _sentences(document: Row) -> Iterator[Row]:
    for sentence in document["sentence"]:
        entities = sentence.get("NE") or sentence.get("ne") or []
        spans = {key: [entity[key] for entity in entities] for key in ("begin", "end", "label")}
        yield {"id": sentence.get("id", ""), "form": sentence["form"], "NE": spans, "ne": spans}


def _mentions(document: Row) -> Row:
    begins: dict[Any, int] = {}
    place = 0
    for sentence in document["sentence"]:
        begins[sentence["id"]] = place
        place += len(sentence["form"]) + 1
    clusters = []
    for cluster in document.get("CR", []):
        mentions = cluster["mention"]
        shift = [begins[mention["sentence_id"]] for mention in mentions]
        clusters.append(
            {
                "form": [mention["form"] for mention in mentions],
                "begin": [mention["begin"] + by for mention, by in zip(mentions, shift, strict=True)],
                "end": [mention["end"] + by for mention, by in zip(mentions, shift, strict=True)],
            }
        )
    text = " ".join(sentence["form"] for sentence in document["sentence"])
    return {"id": document.get("id", ""), "text": text, "CR": {"mention": clusters}}
