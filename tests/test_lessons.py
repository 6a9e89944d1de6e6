"""The lessons keep their form: what they ask, what they say, where it comes from."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from gcelib.view import lessons

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
#: Tools and appendices: no lesson's header, questions and exercises are asked of them.
TOOLS = {"07_sweep", "09_your_logits"}


def cells(path, kind):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def source(cell):
    return "".join(cell["source"])


def printed(path):
    """All text that the notebook's cells show, and their source."""
    parts = []
    for cell in cells(path, "code"):
        parts.append(source(cell))
        for output in cell["outputs"]:
            parts.append("".join(output.get("text", "")))
            parts.append("".join(output.get("data", {}).get("text/plain", "")))
            parts.append("".join(output.get("data", {}).get("text/html", "")))
    return "\n".join(parts)


def numbers_in(text):
    """Numbers with their digits after the point; no formulas, links or sections."""
    text = re.sub(r"\$\$.*?\$\$|\$.*?\$", " ", text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)|`[^`]*`|<[^>]*>", " ", text)
    marks = (
        r"(?:lessons?|sections?|exercises?|Eq\.|Tables?|Figures?|Theorem|App\.|§|and)"
    )
    text = re.sub(marks + r"\s*\[?\d+(?:\.\d+)?\]?", " ", text)
    text = re.sub(r"\(\d\d\)|\b(?:19|20)\d\d\b|\b\d\d, section", " ", text)
    return re.findall(r"(?<![\w.])\d+(?:,\d{3})*(?:\.\d+)?(?![\w])", text)


def is_borne_out(number, values):
    """Whether a printed value rounds to ``number``, as it is or as a percentage."""
    digits = len(number.partition(".")[2])
    wanted = float(number.replace(",", ""))
    half = 0.5 * 10**-digits + 1e-9
    return any(abs(scale * v - wanted) <= half for v in values for scale in (1, 100))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_numbers_in_what_to_notice_come_from_the_same_notebook(path):
    found = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?", printed(path))
    values = {abs(float(number.replace(",", ""))) for number in found}
    for cell in cells(path, "markdown"):
        _, _, paragraph = source(cell).partition("**What to notice.**")
        paragraph = re.split(r"\n##|\*\*Check yourself", paragraph)[0]
        for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z*(])", paragraph):
            if "](" in sentence or "et al." in sentence:
                continue  # its source is named
            for number in numbers_in(sentence):
                assert is_borne_out(number, values), (number, sentence)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_its_question_its_claim_and_its_time(path):
    if path.stem in TOOLS:
        return
    first = source(cells(path, "markdown")[0])
    assert "**Question.**" in first
    assert "**Claim" in first
    assert re.search(r"minutes to read", first), first[-400:]


def minutes_to_read(path):
    """What the lesson's first cell says, in words: "Twenty-five minutes to read"."""
    words = ["five", "ten", "fifteen", "twenty", "twenty-five", "thirty"]
    first = " ".join(source(cells(path, "markdown")[0]).split())
    (found,) = re.findall(r"([\w-]+) minutes to read", first)
    return 5 * (1 + words.index(found.lower()))


def test_the_table_of_the_course_says_the_minutes_of_the_headers_and_their_sum():
    prose = "\n".join(source(cell) for cell in cells(LESSONS[0], "markdown"))
    row = re.compile(r"^\| \[?(\d\d) · .*\| (\d+) \|$", re.M)
    main_path, side_path = prose.split("| side path |")
    said = {int(number): int(minutes) for number, minutes in row.findall(main_path)}
    assert 4 * 60 < sum(said.values()) <= 4 * 60 + 15
    said |= {int(number): int(minutes) for number, minutes in row.findall(side_path)}
    assert said == {int(path.stem[:2]): minutes_to_read(path) for path in LESSONS}
    readme = (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")
    for text in (prose, readme):
        assert "a little over four hours" in " ".join(text.split())


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_asks_its_reader_and_checks_an_answer(path):
    if path.stem in TOOLS:
        return
    code = "\n".join(source(cell) for cell in cells(path, "code"))
    text = "\n".join(source(cell) for cell in cells(path, "markdown"))
    unfolds = re.search(r"^ask\(", code, re.M) or "<details>" in text
    assert unfolds, "no question that answers at once"
    checks = re.search(r"^check\(|is not \.\.\.", code, re.M)
    assert checks, "no exercise with a check"
    asked = set(re.findall(r'check\("(\d\d-\d)", answer\)', code))
    assert {key[:2] for key in asked} <= {path.stem[:2]}
    assert asked <= set(lessons.EXERCISES)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_code_cells_are_short_and_narrow(path):
    for cell in cells(path, "code"):
        lines = source(cell).splitlines()
        assert len(lines) <= 25, source(cell)
        assert max(map(len, lines), default=0) <= 88, max(lines, key=len)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_every_figure_has_a_description(path):
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                shown = "".join(data.get("text/html", ""))
                assert re.search(r'<img alt="[^"]{8,}"', shown), source(cell)


def test_links_between_lessons_lead_somewhere():
    for path in [*LESSONS, *NOTEBOOKS.glob("solutions/*.ipynb")]:
        for cell in cells(path, "markdown"):
            for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", source(cell)):
                assert (path.parent / target).exists(), (path.name, target)


def test_every_exercise_accepts_its_own_answer_and_refuses_another(capsys):
    for key, exercise in lessons.EXERCISES.items():
        expected = exercise.expected()
        lessons.check(key, expected)
        lessons.check(key, expected + 3 * exercise.tolerance + 1)
        lessons.check(key, ...)
        right, wrong, open_ = capsys.readouterr().out.splitlines()
        assert right.startswith(f"{key}: right"), right
        assert wrong.startswith(f"{key}: not yet"), wrong
        assert "three dots" in open_


def test_an_answer_in_the_wrong_unit_or_form_is_told_so(capsys):
    lessons.check("00-1", 0.1)
    lessons.check("10-2", 88)
    fraction, percent = capsys.readouterr().out.splitlines()
    assert "in percent it is 10" in fraction
    assert "as a probability it is 0.88" in percent
    for no_number in ("five", True, 5 + 1j, [5], np.array([5.0, 6.0]), np.array(True)):
        lessons.check("00-1", no_number)
        assert "give one number" in capsys.readouterr().out
    with pytest.raises(ValueError, match="did you mean '00-1'"):
        lessons.check("00-11", 5)


@pytest.mark.parametrize("number", [np.array, torch.tensor, np.float32, float])
def test_a_number_counts_in_whatever_it_comes(number, capsys):
    lessons.check("00-1", number(10.0))
    assert "right" in capsys.readouterr().out


def test_rounded_answers_are_right_and_neighbours_of_whole_ones_are_not(capsys):
    for key, answer in {"02-1": 15.2, "03-1": 6.0, "03-2": 0.7, "04-1": 1}.items():
        lessons.check(key, answer)
        assert ": right" in capsys.readouterr().out
    lessons.check("01-3", 0.3)  # a share of 30 %, as the lesson's own code writes it
    assert "not yet" in capsys.readouterr().out


def test_a_question_needs_a_right_answer_and_replies_that_say_so():
    with pytest.raises(ValueError, match="none is right"):
        lessons.ask("?", {"a": "No.", "b": "No."})
    with pytest.raises(ValueError, match="neither Right nor No"):
        lessons.ask("?", {"a": "Right.", "b": "Perhaps."})
    with pytest.raises(ValueError, match="two or more"):
        lessons.ask("?", {"a": "Right."})
    shown = lessons.ask("1 < 2?", {"yes": "Right.", "no": "No."})._repr_html_()
    assert shown.count("<details>") == 2
    assert "1 &lt; 2?" in shown


def test_the_glossary_names_lessons_that_use_its_words():
    text = (NOTEBOOKS.parent / "docs" / "glossary.md").read_text(encoding="utf-8")
    row = r"^\| (.+?) \| .+ \| \[(\d\d)\]\(\.\./notebooks/(.+?)\)"
    rows = re.findall(row, text, re.M)
    assert len(rows) > 40
    for term, number, file in rows:
        assert file.startswith(number)
        prose = [source(cell) for cell in cells(NOTEBOOKS / file, "markdown")]
        lesson = "\n".join(prose).lower()
        words = re.split(r",? and |, | \(|\)| of | for ", term.lower())
        assert any(word.strip() in lesson for word in words if word), (term, file)
