"""Pages in headless Chromium, where there is one: clicked, searched, light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_page import ANSWERS, FIT, NASTY, RESULTS, SALIENCY, answer

from saledit.report.page import Answers, RunFiles, render_page, run_page

webdriver = pytest.importorskip("selenium.webdriver")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on the PATH"
)
N = 120  # more than one step of rows


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,900"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options, webdriver.ChromeService(DRIVER)) as driver:
        yield driver


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page's address."""
    rows = [*ANSWERS, *(answer("fail", False, i % 3 > 0, f"failure number {i}") for i in range(N))]
    training = [{"step": "0", "train/loss": "1.0"}, {"step": "1", "train/loss": "0.5"}]
    tests, said = {"results.json": RESULTS}, Answers.of(rows, "answers.jsonl")
    files = RunFiles("a run", "name: x", FIT, SALIENCY, training, tests, {"results.json": said})
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(run_page(files)), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser: Any, page: str) -> Any:
    browser.get(page)
    return browser


def rows(driver: Any) -> list[Any]:
    return driver.find_elements("css selector", ".answers tbody tr")


def button(driver: Any, state: str) -> Any:
    return driver.find_element("css selector", f'.states button[data-state="{state}"]')


def found(driver: Any) -> str:
    return driver.find_element("css selector", ".found").text


def test_rows_come_in_steps(opened: Any) -> None:
    total = N + len(ANSWERS)
    assert found(opened) == f"{total} of {total}"
    assert len(rows(opened)) == 50
    opened.find_element("css selector", ".more").click()
    assert len(rows(opened)) == total
    assert not opened.find_element("css selector", ".more").is_displayed()


def test_states_are_clicked_and_clicked_away(opened: Any) -> None:
    broken = button(opened, "broken")
    assert broken.text == "broken 2"
    broken.click()
    assert [row.text.splitlines()[0] for row in rows(opened)] == ["broken", "broken"]
    assert broken.get_attribute("aria-pressed") == "true"
    button(opened, "still wrong").click()
    assert found(opened).startswith(f"{1 + N // 3} of")
    assert broken.get_attribute("aria-pressed") == "false"
    button(opened, "still wrong").click()
    assert found(opened).startswith(f"{N + len(ANSWERS)} of")


def test_texts_are_searched_word_by_word(opened: Any) -> None:
    search = opened.find_element("css selector", "input[type=search]")
    search.send_keys("NUMBER 17")
    assert len(rows(opened)) == 2  # 17 and 117
    assert "failure number 17" in rows(opened)[0].text
    assert button(opened, "fixed").text == "fixed 1"
    assert button(opened, "still wrong").text == "still wrong 1"
    search.clear()
    search.send_keys("no such words at all")
    assert not rows(opened)
    assert found(opened).startswith("0 of")


def test_parts_are_chosen(opened: Any) -> None:
    from selenium.webdriver.support.select import Select

    select = Select(opened.find_element("css selector", "select"))
    assert [o.text for o in select.options] == [
        "all samples", "failures", "rewordings", "pass samples",
    ]  # fmt: skip
    select.select_by_visible_text("pass samples")
    assert len(rows(opened)) == 1


def test_texts_are_shown_as_they_are_and_nothing_runs(opened: Any) -> None:
    first = rows(opened)[0].find_element("css selector", ".field").text
    assert first == NASTY
    assert not [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"]
    assert opened.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_light_and_dark(opened: Any) -> None:
    def background() -> str:
        return opened.execute_script("return getComputedStyle(document.body).backgroundColor")

    def ink() -> str:
        script = "return getComputedStyle(document.querySelector('.chart svg text')).fill"
        return opened.execute_script(script)

    seen = set()
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        seen.add((background(), ink()))
    assert len({ground for ground, _ in seen}) == len({text for _, text in seen}) == 2
    dark = background()
    opened.find_element("css selector", "#theme").click()
    assert background() != dark
    opened.find_element("css selector", "#theme").click()
    assert background() == dark


def test_narrow_windows_do_not_scroll_sideways(opened: Any, tmp_path: Path) -> None:
    opened.set_window_size(500, 900)
    width = opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]
    opened.set_window_size(1100, 900)
