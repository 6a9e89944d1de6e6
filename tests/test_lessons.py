"""The lessons keep their form: what they ask, what they say, where it comes from."""

import csv
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from gcelib import TrainConfig, plots, runs, shipped
from gcelib.view import lessons
from gcelib.view.alt import description

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
WITH_SOLUTIONS = [*LESSONS, *sorted(NOTEBOOKS.glob("solutions/*.ipynb"))]
#: Tools and appendices: no lesson's header, questions and exercises are asked of them.
TOOLS = {"07_sweep", "09_your_logits"}


#: Lines of cells that need a kernel.
ONLY_IN_A_KERNEL = re.compile(r"^%.*|^.*check_parameters.*|^plt\.show\(\)", re.M)


def run_cells(number, *marks, **parameters):
    """Variables of a lesson after the cells that hold these marks, in this order."""
    (path,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    sources = [source(cell) for cell in cells(path, "code")]
    variables = {}
    exec(sources[0], variables)
    variables |= parameters
    for mark in marks:
        (code,) = [text for text in sources if mark in text]
        exec(ONLY_IN_A_KERNEL.sub("", code), variables)
    return variables


def named(path):
    return f"{path.parent.name}-{path.stem}"


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


def main_part(path):
    """The cells, cut at headings, that count as reading: (section, kind, text, cell).

    Left out: exercises and what follows them, and sections whose heading says optional.
    """
    section, skipped = "", None
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            if skipped is None:
                yield section, "code", source(cell), cell
            continue
        for text in re.split(r"^(?=#{2,3} )", source(cell), flags=re.M):
            heading = re.match(r"(#{2,3}) (.*)", text)
            if heading:
                level, section = len(heading[1]), heading[2]
                if section == "Exercises":
                    return
                if skipped is None or level <= skipped:
                    skipped = level if "*Optional*" in section else None
            if skipped is None and text.strip():
                yield section, "markdown", text, cell


def is_folded(cell):
    return cell["metadata"].get("jupyter", {}).get("source_hidden", False)


def minutes_by_count(path):
    """What reading takes by a count; its rates are those of a reader's stopwatch.

    200 words, 20 lines of code, a picture, or two of formulas, tables and questions a
    minute. Folded code is not read.
    """
    total = 0.0
    for _, kind, text, cell in main_part(path):
        if kind == "markdown":
            words, formulas = re.subn(r"\$\$.*?\$\$", " ", text, flags=re.S)
            words = re.sub(r"\$[^$]*\$", " x ", words)
            words = re.sub(r"\]\([^)]*\)|<[^>]+>", " ", words)
            total += len([w for w in words.split() if re.search(r"\w", w)]) / 200
            total += formulas / 2
            continue
        if not is_folded(cell):
            total += sum(bool(line.strip()) for line in text.splitlines()) / 20
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                total += 1
            elif "text/html" in data:
                total += 1 / 2
    return total


def minutes_to_read(path):
    """What the lesson's first cell says, in words: "Twenty-five minutes to read"."""
    words = ["five", "ten", "fifteen", "twenty", "twenty-five", "thirty"]
    first = " ".join(source(cells(path, "markdown")[0]).split())
    (found,) = re.findall(r"([\w-]+) minutes to read", first)
    return 5 * (1 + words.index(found.lower()))


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_header_promises_the_minutes_that_a_count_of_words_and_figures_gives(path):
    assert -3 < minutes_to_read(path) - minutes_by_count(path) < 6


def test_the_main_path_takes_four_hours_and_the_table_says_the_headers_minutes():
    prose = "\n".join(source(cell) for cell in cells(LESSONS[0], "markdown"))
    row = re.compile(r"^\| \[?(\d\d) · .*\| (\d+) \|$", re.M)
    main_path, side_path = prose.split("| side path |")
    said = {int(number): int(minutes) for number, minutes in row.findall(main_path)}
    counted = sum(minutes_by_count(LESSONS[number]) for number in said)
    assert len(said) == 10
    assert counted <= sum(said.values()) <= 4 * 60
    said |= {int(number): int(minutes) for number, minutes in row.findall(side_path)}
    assert said == {int(path.stem[:2]): minutes_to_read(path) for path in LESSONS}
    readme = (NOTEBOOKS.parent / "README.md").read_text(encoding="utf-8")
    for text in (prose, readme):
        assert "at most four hours" in " ".join(text.split())


@pytest.mark.parametrize("path", WITH_SOLUTIONS, ids=named)
def test_a_section_has_at_most_one_table(path):
    section = ""
    tables = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            section = [section, *re.findall(r"^#{2,3} (.*)", source(cell), re.M)][-1]
            continue
        shown = [output.get("data", {}) for output in cell["outputs"]]
        html = ["".join(data.get("text/html", "")) for data in shown]
        pictures = ["image/png" in data for data in shown]
        found = ["<table" in t and not p for t, p in zip(html, pictures, strict=True)]
        tables[section] = tables.get(section, 0) + sum(found)
    assert max(tables.values(), default=0) <= 1, tables


@pytest.mark.parametrize("path", WITH_SOLUTIONS, ids=named)
def test_a_heading_stands_on_a_line_of_its_own(path):
    for cell in cells(path, "markdown"):
        for line in source(cell).splitlines():
            assert not re.search(r"[^#] *#{2,} ", line), line


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_folded_code_is_folded_in_jupyter_and_on_the_site(path):
    """What only draws a picture or guards a sentence is folded; ideas are not."""
    for cell in cells(path, "code"):
        tagged = "hide-input" in cell["metadata"].get("tags", [])
        assert tagged == is_folded(cell), source(cell)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_asks_its_reader_and_checks_an_answer(path):
    if path.stem in TOOLS:
        return
    code = "\n".join(source(cell) for cell in cells(path, "code"))
    questions = re.findall(r"^ask\(", code, re.M)
    assert 2 <= len(questions) <= 3, "two or three questions that answer at once"
    checks = re.search(r"^check\(|is not \.\.\.", code, re.M)
    assert checks, "no exercise with a check"
    asked = set(re.findall(r'check\("(\d\d-\d)", answer\)', code))
    assert {key[:2] for key in asked} <= {path.stem[:2]}
    assert asked <= set(lessons.EXERCISES)


@pytest.mark.parametrize("path", WITH_SOLUTIONS, ids=named)
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
    for path in WITH_SOLUTIONS:
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
        lesson = " ".join("\n".join(prose).lower().split())
        words = re.split(r",? and |, | \(|\)| of | for ", term.lower())
        assert any(word.strip() in lesson for word in words if word), (term, file)


@pytest.mark.parametrize("loss", ["ce", "gce"])
def test_lesson_03_shows_the_projects_other_run_beside_the_default_one(loss, recwarn):
    other = {"ce": "gce", "gce": "ce"}[loss]
    beside = shipped.run_beside(TrainConfig(loss=loss), other)
    assert beside.parts[-5:] == ("demo", "fashion_mini", "convnet", other, "seed-01")
    assert not recwarn.list


OTHER_SETTINGS = [
    ({"seed": 3}, "seed 1 (here 3)"),
    ({"epochs": 2}, "epochs 12 (here 2), milestones (7, 10) (here (1))"),
    ({"lr": 0.01}, "lr 0.05 (here 0.01)"),
    ({"batch_size": 32}, "batch_size 64 (here 32)"),
    ({"augment": True}, "augment False (here True)"),
    ({"recipe": "published_code"}, "reduction mean (here sum)"),
]


@pytest.mark.parametrize(("given", "told"), OTHER_SETTINGS)
def test_a_run_of_another_seed_or_recipe_is_told_and_not_put_beside(
    given, told, tmp_path
):
    config = TrainConfig(loss="gce", runs_dir=tmp_path, **given)
    with pytest.warns(UserWarning, match="another experiment") as caught:
        assert shipped.run_beside(config, "ce") is None
    assert told in str(caught[0].message)


def test_the_readers_own_run_is_put_beside_once_it_is_finished_and_alike(tmp_path):
    config = TrainConfig("digits", loss="gce", epochs=2, runs_dir=tmp_path)
    own = dataclasses.replace(config, loss="ce")
    assert shipped.run_beside(config, "ce") is None
    with runs.open_run(own.run_dir, own.settings(), {}) as run:
        run.finish({"test_raw_ece": 0.25})
    assert shipped.run_beside(config, "ce") == own.run_dir
    longer = dataclasses.replace(config, epochs=3)
    assert shipped.run_beside(longer, "ce") is None


def means_of_networks(metric, n_val):
    """Mean over splits by network, of each calibrator, in percent; csv and numpy."""
    table = csv.DictReader((NOTEBOOKS.parent / "data/results/real_networks.csv").open())
    splits = {}
    for row in table:
        if int(row["n_val"]) == n_val:
            by_network = splits.setdefault(row["calibrator"], {})
            by_network.setdefault(row["network"], []).append(float(row[metric]))
    return {
        calibrator: np.array([100 * np.mean(by_network[n]) for n in sorted(by_network)])
        for calibrator, by_network in splits.items()
    }


REAL_NETWORKS = [("ece", 5000), ("classwise_ece", 5000), ("nll", 1000), ("brier", 1000)]


@pytest.mark.parametrize(("metric", "n_val"), REAL_NETWORKS)
def test_lesson_14_says_of_any_metric_what_its_numbers_say(metric, n_val, capsys):
    marks = ["real_networks", "ax.set_xlabel", "ten times the step"]
    variables = run_cells("14", *marks, metric=metric, n_val=n_val)
    plt.close("all")
    mean = means_of_networks(metric, n_val)
    start, tenfold, end = (
        mean[name].mean() for name in ("ats", "ats_step_0.5", "ats_converged")
    )
    said = capsys.readouterr().out.splitlines()[-1]
    if end < start:
        share = 100 * (start - tenfold) / (start - end)
        assert said == f"ten times the step closes {share:.0f} % of the gap"
    else:
        assert f"by {metric} converged ATS is not lower" in said
    below = [
        (mean[name] < mean["ts_ece"]).sum()
        for name in ("ats", "ats_converged", "spline")
    ]
    alt = description(variables["fig"])
    assert metric in alt
    assert [int(number) for number in re.findall(r"on (\d+)", alt)] == below


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_title_has_a_variables_value_from_the_variable(path):
    code = "\n".join(source(cell) for cell in cells(path, "code"))
    title = r'(?:rename_axis|set_title|suptitle)\(\s*"([^"\n]*?\b(\w+) = \d[^"\n]*)"'
    for text, name in re.findall(title, code):
        assert not re.search(rf"^{name} = ", code, re.M), text


def test_lesson_06_shows_its_networks_alone_whatever_lies_beside_them(tmp_path):
    calibrators = ("raw", "ts_nll", "ets", "ats", "ats_converged")
    names = [f"{s}_{c}_auroc" for s in ("digits", "noise") for c in calibrators]
    there = [("convnet", "", 0.5), ("convnet", "x", 0.6), ("mlp", "", 0.7)]
    for model, variant, auroc in there:
        settings = {"model": model, "variant": variant, "runs_dir": tmp_path}
        config = TrainConfig("fashion_mini", loss="gce", **settings)
        with runs.open_run(config.run_dir, config.settings(), {}) as run:
            run.finish(dict.fromkeys(names, auroc))
    place = tmp_path / "fashion_mini" / "convnet" / "gce" / "seed-01"
    variables = {"root": tmp_path, "losses": ["gce"], "paths": {"gce": place}}
    variables |= {"stored": ("digits", "noise"), "runs": runs, "plots": plots}
    shown = run_cells("06", 'results["run_dir"]', plt=plt, **variables)["results"]
    plt.close("all")
    assert shown["digits_raw_auroc"].tolist() == [0.5]


def test_the_results_page_compares_at_seeds_that_all_losses_have(monkeypatch):
    """Means of other seeds, or of other losses, would stand beside each other."""
    from gcelib.study import paper
    from gcelib.study.paper import report

    whole = paper.committed_results().query(
        "variant == '' and dataset != 'digit_pairs'"
    )
    many = whole.loss.isin(["ce", "gce", "brier"])
    some = whole[(whole.seed <= 3) | many].query("loss in ('ce', 'gce', 'flsd', 'dfl')")
    lacks = (some.dataset == "fashion_mini_lt10") & (some.loss == "ce")
    some = some.assign(test_ats_ece=some.test_ats_ece.mask(lacks))
    monkeypatch.setattr(report, "committed_results", lambda: some.copy())
    marks = ["open_report", "def at_shared_seeds", "temperatures = pd"]
    marks += ["compared_metrics = {", "def forest", "AGAINST ="]
    page = run_cells("08", *marks, plt=plt)
    axes = plt.gcf().axes
    plt.close("all")
    shared = some[some.seed <= 3].set_index(["dataset", "loss", "seed"]).sort_index()

    of = shared.ts_nll_temperature["fashion_mini"].groupby("loss").mean()
    row = page["temperatures"].loc["fashion_mini"]
    assert row["n"] == 3
    assert row[of.index].to_dict() == of.round(2).to_dict()
    assert row["gce - ce"].startswith(f"{of['gce'] - of['ce']:+.2f} [")

    table = page["shown"]["calibrators"].set_index(["dataset", "calibrator", "against"])
    for dataset in ("fashion_mini", "fashion_mini_lt10"):
        gap = 100 * (shared.test_ats_ece - shared.test_raw_ece)[dataset].dropna()
        row = table.loc[dataset, plots.LABELS["ats"], plots.LABELS["raw"]]
        assert row["n"] == 3
        expected = paper.interval(
            [gap.xs(seed, level="seed").mean() for seed in (1, 2, 3)]
        )
        np.testing.assert_allclose(
            row[["difference", "low", "high"]].astype(float), expected, atol=0.005
        )
        means = [gap[loss].mean() for loss in set(gap.index.get_level_values("loss"))]
        better = f"{sum(mean < 0 for mean in means)} of {len(means)}"
        assert row["losses where it is better"] == better
    assert len(means) == 3  # CE lacks ATS there

    # The last panel has no row for that, and every label stays beside its own row.
    compared = page["compared"]
    assert len(compared["test_ats_ece"]) == len(compared["test_raw_error"]) - 1
    error, *_, ats = axes
    labels = [tick.get_text() for tick in error.get_yticklabels()]
    for ax, metric in ((error, "test_raw_error"), (ats, "test_ats_ece")):
        points = [line for line in ax.lines if line.get_marker() == "o"]
        drawn = {labels[int(p.get_ydata()[0])]: p.get_xdata()[0] for p in points}
        rows = compared[metric].itertuples()
        told = {
            f"{row.dataset} · {plots.LABELS[row.loss]}": 100 * row.difference
            for row in rows
        }
        assert drawn == told
