"""Tables, plots and files of a run, from made-up results."""

from __future__ import annotations

import copy
import io
import json
import math
import re
from pathlib import Path

import pytest
from shown import ALL, FIT, FIX, GRADIENT, STORY, TEST, TRIAL, Terminal, flat, row, shown

from saledit import config
from saledit.errors import JobError
from saledit.report import (
    annotated_yaml,
    render,
    saliency_figure,
    write_plot,
    write_results,
)
from saledit.report.look import Look, clean, duration, number, percent, points
from saledit.report.render import _TABLES
from saledit.report.story import layer_sentence
from saledit.verbs import VERBS


def test_every_verb_that_shows_a_result_has_one_here():
    assert ALL.keys() == _TABLES.keys() == VERBS.keys() - {"config"}


@pytest.mark.parametrize("fancy", [False, True])
@pytest.mark.parametrize("verb", ALL)
def test_every_page_fits_into_80_columns(verb: str, fancy: bool):
    text = shown(verb, ALL[verb], fancy)
    # Commands are to be copied, so they are never broken.
    lines = [line for line in text.splitlines() if not line.startswith("  saledit ")]
    assert max(map(len, lines)) <= 80
    assert fancy or not any(line != line.rstrip() for line in lines)


@pytest.mark.parametrize("verb", ALL)
def test_piped_pages_are_plain_ascii(verb: str):
    text = render(verb, ALL[verb], io.StringIO())
    assert text.isascii()
    assert "\x1b" not in text
    assert text.endswith("\n")


def test_a_terminal_gets_colours_unless_they_are_unwanted(monkeypatch: pytest.MonkeyPatch):
    assert "\x1b[" in render("test", TEST, Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in render("test", TEST, Terminal())


def test_the_test_page_holds_the_numbers():
    text = shown("test", TEST)
    assert re.search(r"unedited +\| +0.0% \| 12.3% +\| +8.2% \| 100.0% \| +- \| +- \|", text)
    edited = r"edited +\| 95.5% \| 94.5% +\| 94.8% \| +98.8% \| +1.2 pt \| +0.0311 \|"
    assert re.search(edited, text)
    assert re.search(r"wording +\| +95.0% \| 1,502 \| #+", text)
    assert "1 min 32 s at 173.2 edits/s; 21 ms for one edit; peak memory 812 MB" in flat(text)
    assert "82 edits, 10 failures each, the last of 2, schedule batch" in flat(text)


def test_the_test_page_does_without_rewordings_and_shows_generation():
    result = copy.deepcopy(TEST)
    del result["metrics"]["adapt_accuracy"], result["unedited"]["adapt_accuracy"]
    result["adapt_by_kind"] = {}
    result["metrics"]["generated"] = {"fail_accuracy": 0.777, "drawdown": -0.00001}
    result["metrics"] |= {"perplexity_before": 12.34, "perplexity_after": 12.5}
    text = shown("test", result)
    assert re.search(r"edited, generated +\| 77.7% \| +- \| +- \| +- \| +0.0 pt", text)
    assert "12.34 -> 12.5" in text
    assert "by kind" not in text


@pytest.mark.parametrize("fancy", [False, True])
def test_the_saliency_page_marks_the_pick(fancy: bool):
    text = shown("saliency", TRIAL, fancy)
    picked = [line for line in text.splitlines() if "picked" in line and "score" not in line]
    assert len(picked) == 1
    assert re.match(r"\W*3\b", picked[0])
    assert "90.0%" in picked[0]
    assert ("█" in text) is fancy
    assert "2,346 forward and 96 backward passes" in flat(text)


def test_a_score_below_zero_has_no_bar_and_a_repeated_one_no_column():
    line = next(ln for ln in shown("saliency", TRIAL).splitlines() if "-0.4" in ln)
    assert "#" not in line
    text = shown("saliency", GRADIENT)
    assert "mean |grad|" not in text
    assert "Frobenius" in text
    assert "3.40e-05" in text


def test_scores_that_are_all_equal_or_negative_still_show():
    flat_scores = copy.deepcopy(TRIAL)
    for entry in flat_scores["layers"]:
        entry["score"] = -1.0
    assert "picked" in shown("saliency", flat_scores)


def test_a_validation_beside_texts_says_how_much_more_perplexity():
    rises = {"drawdown": 0.02, "generated_drawdown": 0.03, "perplexity_before": 20.0}
    text = flat(shown("fit", FIT | {"validation": rises}))
    assert "| drawdown | 2.0% more |" in text
    assert "| drawdown, generated | 3.0% more |" in text
    assert re.search(r"\| drawdown +\| +1.2 pt \|", shown("fit", FIT))


def test_the_fit_page_says_what_was_trained():
    text = shown("fit", FIT)
    assert re.search(r"train +\| +812 \| +1,604 \| +4,000", text)
    assert re.search(r"order +\| +102 \| +102 \| +0", text)
    assert "Edited layer 3 (of 0 to 5): encoder" in text
    assert re.search(r"edit accuracy +\| +94.0%", text)
    assert "saledit test checkpoints/quickstart" in text
    assert "1,234,567 parameters" in flat(text)
    assert "by trial-step" in text
    assert "by trial-step" not in shown("fit", {**FIT, "saliency": None})


def test_the_fix_page_shows_before_and_after():
    text = shown("fix", FIX)
    assert "9 of 10 failures fixed" in text
    assert text.count("| refutes |") == 11
    assert text.count("| NO") == 1
    assert "accuracy 100.0% -> 99.7%, drawdown 0.3 pt" in flat(text)
    assert "1 answer broke there" in text
    fancy = shown("fix", FIX, fancy=True)
    assert fancy.count("✓") == 9
    assert fancy.count("✗") == 1
    assert "…" in fancy


def test_the_fix_page_of_many_failures_shows_those_that_stay_wrong():
    rows = [row(i, fixed=i not in (40, 41)) for i in range(42)]
    right = row(50, fixed=False, before="supports", after="supports")
    result = {**FIX, "rows": [*rows, right], "n_failures": 43, "n_wrong_before": 42, "check": None}
    text = shown("fix", result)
    assert text.count("| NO") == 2
    assert "country 40 " in text
    assert "country 50 " not in text
    assert "and 32 more" in text
    assert "1 record was right already" in flat(text)
    assert "not checked" in text


def test_what_a_fix_breaks_of_its_own_file_is_said():
    """It was right already, so it is no failure; nor is it of the check set."""
    rows = [row(i, fixed=True) for i in range(3)]
    lost = [row(50 + i, fixed=False, before="supports", after="refutes") for i in range(7)]
    lost = [{**own, "was_right": True, "is_right": False} for own in lost]
    result = {**FIX, "rows": [*rows, *lost], "n_failures": 10, "n_wrong_before": 3}
    text = shown("fix", result)
    assert "7 records that were right already are wrong now:" in flat(text)
    assert sum(f"country {50 + i} " in text for i in range(7)) == 5
    assert "and 2 more" in text
    one = shown("fix", {**result, "rows": [*rows, lost[0]]})
    assert "1 record that was right already is wrong now:" in flat(one)
    assert "wrong now:" not in shown("fix", {**result, "rows": rows})


def test_nothing_broken_is_said():
    assert "Nothing that was right broke" in shown(
        "fix", {**FIX, "check": {**FIX["check"], "changed": []}}
    )


def test_texts_of_users_are_neither_markup_nor_control_codes():
    evil = row(0, inputs=["[bold red]x[/] \x1b[31m\n\ttext :smile: ‮", "b" * 500], target="[/]")
    for fancy in (False, True):
        text = shown("fix", {**FIX, "rows": [evil]}, fancy)
        assert "[bold red]x[/] [31m text :smile:" in text
        assert "‮" not in text
        assert "| [/]" in text or fancy
        assert max(map(len, text.splitlines())) <= 80
    pair = row(0, inputs=["A short premise.", "c" * 500])
    assert "A short premise. /" in shown("fix", {**FIX, "rows": [pair]})
    assert re.search(r"A short premise\. .*\n +c+", shown("fix", {**FIX, "rows": [pair]}, True))


def test_wide_characters_are_cut_by_their_width():
    text = shown("fix", {**FIX, "rows": [row(0, inputs=["首都" * 60])]}, fancy=True)
    first = next(line for line in text.splitlines() if "首都" in line)
    assert len(first) + first.count("首") + first.count("都") <= 80


def test_what_a_stream_cannot_encode_is_replaced():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    text = render("fix", {**FIX, "rows": [row(0, inputs=["Paraná \ud800"])]}, stream)
    assert "Paran?" in text
    stream.write(text)
    stream.flush()


def test_a_wide_terminal_shows_more(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = shown("fix", FIX, fancy=True)
    assert "course." in text
    assert max(map(len, text.splitlines())) <= 110


def test_the_story_is_whole():
    text = flat(shown("quickstart", STORY))
    for part in (
        "812 of its failures were kept apart",
        "9 of 10 are fixed. Of 300 other answers that were checked, 1 was right before",
        "Layer 3 (of 0 to 5, from the input up) was edited: one trial step there mends 90.0%",
        "next is layer 2 with 0.71",
        "Edit accuracy 94.8% (unedited 8.2%)",
        "Drawdown 1.2 pt",
        "saledit fix checkpoints/quickstart --failures YOUR_FAILURES.jsonl --out my-fix",
        "All in 3 min 1 s",
    ):
        assert part in text
    assert text.count("country") == 10


@pytest.mark.parametrize("fancy", [False, True])
def test_a_command_is_never_broken(fancy: bool):
    command = f"saledit fix {'a/long/path' * 20} --failures YOUR_FAILURES.jsonl --out my-fix"
    assert f"  {command}\n" in shown("quickstart", {**STORY, "next": [command]}, fancy)


def test_the_layer_is_explained_for_every_picker():
    assert "gradient of the loss" in layer_sentence({**FIT, "saliency": GRADIENT, "layer": 1})
    assert "because the configuration says so" in layer_sentence({**FIT, "saliency": None})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.12345), "12.3%"),
        (percent(None), "-"),
        (points(-0.0001), "0.0 pt"),
        (points(-0.012), "-1.2 pt"),
        (number(0.000123), "1.23e-04"),
        (number(1234567), "1,234,567"),
        (number(0.03114), "0.03114"),
        (duration(0.0214), "21 ms"),
        (duration(59.9), "59.9 s"),
        (duration(61), "1 min 1 s"),
        (duration(7501), "2 h 5 min"),
        (clean(" a\n\tb\x07\x1b[0m "), "a b[0m"),
        (Look().cut("abcdef", 5), "ab..."),
        (Look(fancy=True).cut("abcdef", 5), "abcd…"),
        (str(Look(fancy=True).bar(0.5, 9)), "████▌"),
        (str(Look().bar(7.0, 4)), "####"),
    ],
)
def test_numbers_and_texts(text: str, expected: str):
    assert text == expected


def test_results_are_written(tmp_path: Path):
    path = write_results(tmp_path / "run", TEST)
    assert json.loads(path.read_text()) == TEST
    with pytest.raises(JobError, match="NaN"):
        write_results(tmp_path / "other", {**TEST, "metrics": {"drawdown": math.nan}})
    assert not (tmp_path / "other" / "results.json").exists()
    with pytest.raises(AssertionError, match="seed"):
        write_results(tmp_path, {k: v for k, v in TEST.items() if k != "seed"})


def test_the_plot_is_a_png(tmp_path: Path):
    for name, table in {"a": TRIAL, "b": {**GRADIENT, "method": "$x_{"}}.items():
        path = tmp_path / "new" / f"{name}.png"
        write_plot(saliency_figure(table), path)
        assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.png", "b.png"]
    (tmp_path / "file").write_text("")
    with pytest.raises(JobError, match="cannot be written"):
        write_plot(saliency_figure(TRIAL), tmp_path / "file" / "c.png")


@pytest.mark.parametrize("name", [None, "nli/quickstart"])
def test_the_commented_configuration_reads_back(name: str | None, tmp_path: Path):
    loaded = config.load(name, ["seed=7", "trainer.precision=bf16", "data.train='a: #b'"])
    path = tmp_path / "run.yaml"
    path.write_text(annotated_yaml(loaded), encoding="utf-8")
    assert config.load(path) == loaded
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^seed: 7 +# seed of splits", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("refused", "said"),
    [
        ({"drawdown_above": 0.02}, "its drawdown is 2.0 pt above the bound"),
        ({"fixed_below": 0.1}, "it mends 10.0 pt fewer than it has to"),
        ({"nothing_fixed": True}, "it mends none of the 8 failures (--min-fixed 0 writes such"),
    ],
)
def test_a_refused_fix_says_why(refused: dict[str, float], said: str):
    result = {**FIX, "n_wrong_before": 8, "refused": {**refused, "part": None}}
    text = flat(shown("fix", result))
    assert said in text
    assert "Nothing was written" in text
    assert ("No part of it mends" in text) == ("drawdown_above" in refused)
