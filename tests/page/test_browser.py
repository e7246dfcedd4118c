"""The report in a real browser: what is drawn, found, sorted, hovered and zoomed, with the mouse and with keys.

They need Chromium, its driver and selenium (Debian: chromium, chromium-driver; extra ``browser``).
"""

from __future__ import annotations

import json
import os
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest
from pages import EVIL, history, record

import labeltrack as lt
from labeltrack.report import write_report

WANTED = os.environ.get("LABELTRACK_REQUIRE_BROWSER", "")
PROGRAMS = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
if WANTED == "0":
    pytest.skip("the browser's tests run elsewhere", allow_module_level=True)
if WANTED != "1":
    pytest.importorskip("selenium", reason="selenium is not installed (extra 'browser')")
    if None in PROGRAMS:
        pytest.skip("Chromium or its driver is not installed", allow_module_level=True)

SLOWNESS = float(os.environ.get("LABELTRACK_SLOWNESS", "1"))  # of a machine that runs other things


@pytest.fixture(scope="module")
def driver():
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = PROGRAMS[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(argument)
    options.add_argument("--disable-dev-shm-usage")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with webdriver.Chrome(options=options, service=Service(PROGRAMS[1])) as started:
        yield started


@pytest.fixture
def show(driver):
    """Return a function that opens a page; afterwards, nothing must have gone wrong or been requested."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    opened = []

    def show(path, width=1280, height=800, **media):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        opened.append(path.as_uri())
        driver.get(opened[-1])
        page = SimpleNamespace(
            driver=driver,
            js=driver.execute_script,
            find=lambda css: driver.find_element(By.CSS_SELECTOR, css),
            texts=lambda css: [one.text for one in driver.find_elements(By.CSS_SELECTOR, css)],
            wait=lambda condition: WebDriverWait(driver, 20 * SLOWNESS).until(lambda _: condition()),
        )
        page.names = lambda: page.texts("#table tr.row td:first-child")
        page.wait(lambda: frames(page))
        page.wait(lambda: page.find("#heatmap-tip") is not None)
        return page

    yield show
    said = [entry["message"] for entry in driver.get_log("browser")]
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    assert said == []
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url not in opened and not url.startswith("data:")] == []
    assert asked


def frames(page):
    return page.js("return performance.getEntriesByName('first frame').map((mark) => mark.startTime)")


def ink(page, canvas):
    """Return how many pixels of a canvas are drawn, and a checksum of them."""
    return page.js(
        """const canvas = document.getElementById(arguments[0]);
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
        copy.drawImage(canvas, 0, 0);
        const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
        let [drawn, sum] = [0, 0];
        for (let i = 0; i < data.length; i++) { sum = (sum * 31 + data[i]) | 0; drawn += i % 4 === 3 && data[i] > 0; }
        return [drawn, sum];""",
        canvas,
    )


def press(page, *keys):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page.driver).send_keys(*keys).perform()


def drag(page, element, start, end):
    """Drag over an element, from one share of its width to another."""
    from selenium.webdriver.common.action_chains import ActionChains

    width = element.size["width"]
    chain = ActionChains(page.driver, duration=20)
    chain.move_to_element_with_offset(element, int((start - 0.5) * width), 0).click_and_hold()
    chain.move_to_element_with_offset(element, int((end - 0.5) * width), 0).release().perform()


def hover(page, element, across=0.5):
    from selenium.webdriver.common.action_chains import ActionChains

    page.js("arguments[0].scrollIntoView({ block: 'center' })", element)
    offset = int((across - 0.5) * element.size["width"])
    ActionChains(page.driver, duration=20).move_to_element_with_offset(element, offset, 0).perform()


def choose(page, name, value):
    from selenium.webdriver.support.select import Select

    Select(page.find(f"#{name}")).select_by_value(value)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A report of a recorded run with one planted regression among 200 labels."""
    folder = tmp_path_factory.mktemp("planted")
    write_report(record(folder / "run", worse=123), folder / "report.html")
    return folder / "report.html"


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    path = tmp_path_factory.mktemp("hundred") / "report.html"
    history(100, 40, worse=42, modes=("eval", "train")).to_html(path)
    return path


def in_view(page, css):
    return page.js(
        "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
        "return box.top >= 0 && box.bottom <= innerHeight && box.height > 0;",
        css,
    )


def test_a_planted_regression_is_found_in_the_first_screen(show, planted):
    page = show(planted)
    assert page.find("h1").text.replace("\u2068", "").startswith("1 of 200 labels got worse from step 3 to step 4: 123")
    assert in_view(page, "h1")
    assert page.names()[0] == "123"
    assert page.texts("#table tr.row td")[7] == "worse"
    assert in_view(page, "#table tr.row")
    assert in_view(page, "#curve")
    assert ink(page, "curve")[0] > 1000
    assert page.find("#chosen li").text.startswith("123")


def test_labels_are_sorted_by_a_click_on_a_column(show, hundred):
    page = show(hundred)
    assert page.names()[0] == "42"
    page.find("th[data-key=name] button").click()
    assert page.names()[:4] == ["0", "1", "2", "3"]
    assert page.find("th[data-key=name]").get_attribute("aria-sort") == "ascending"
    page.find("th[data-key=name] button").click()
    assert page.names()[:2] == ["99", "98"]
    page.find("th[data-key=after] button").click()
    latest = [float(text) for text in page.texts("#table tr.row td:nth-child(3)")]
    assert latest == sorted(latest, reverse=True)
    page.find("th[data-key=after] button").click()
    page.find("th[data-key=after] button").click()
    assert page.names()[0] == "42"


def test_labels_are_searched_and_filtered(show, hundred):
    page = show(hundred)
    press(page, "/")
    press(page, "7")
    assert page.find("#search").get_attribute("value") == "7"
    assert page.find("#found").text == "19 of 100 labels"
    assert all("7" in name for name in page.names())
    press(page, "x")
    assert (page.names(), page.find("#detail").text) == ([], "No label matches.")
    press(page, "\ue003", "\ue003")  # backspace
    assert len(page.names()) > 10
    choose(page, "only", "worse")
    assert page.names() == ["42"]


def test_labels_are_chosen_with_the_mouse_and_with_keys(show, hundred):
    page = show(hundred)
    drawn = page.texts("#chosen bdi")
    assert len(drawn) == 3
    before = ink(page, "curve")
    page.find("#chosen button").click()
    assert page.texts("#chosen bdi") == drawn[1:]
    assert ink(page, "curve") != before
    page.find("#table tr.row:nth-child(5)").click()
    assert page.texts("#chosen bdi") == [*drawn[1:], page.names()[4]]
    press(page, "\ue015", " ")  # arrow down, space
    assert page.texts("#chosen bdi") == [*drawn[1:], *page.names()[4:6]]
    press(page, " ")
    assert page.texts("#chosen bdi") == [*drawn[1:], page.names()[4]]
    press(page, "\ue010")  # end
    assert page.js("return document.activeElement.dataset.place") == "99"
    assert in_view(page, "#table tr.focus")


WIDE = "return [...document.querySelectorAll('#table tr.row td')].filter((one) => one.scrollWidth > one.clientWidth)"


def test_the_table_is_full_and_cuts_no_number_off(show, hundred):
    page = show(hundred)
    below = "document.querySelector('#table tr.space').getBoundingClientRect().top"  # what is not drawn yet
    assert page.js(f"return {below} > document.getElementById('scroller').getBoundingClientRect().bottom")
    assert page.js(f"{WIDE}.map((one) => one.textContent)") == []


def test_small_numbers_are_not_cut_off_either(show, tmp_path):
    small = lt.History(metric="loss", label="class")
    for step in (1, 2):
        values = np.tile([7.75e-6] * 5 + [0.001515], 10)
        small.add(step, lt.label_stats(np.repeat([0, 1], 30), values * step), mode="eval")
    small.to_html(tmp_path / "report.html")
    page = show(tmp_path / "report.html")
    assert "e−4" in page.texts("#table tr.row td")[2]
    assert page.js(f"{WIDE}.map((one) => one.textContent)") == []


def test_curves_are_as_tall_as_the_table_beside_them_and_drawn_anew_when_that_changes(show, hundred):
    page = show(hundred)
    size = lambda: page.js("const one = document.getElementById('curve'); return [one.height, one.clientHeight];")  # noqa: E731
    tall = size()[1]
    page.wait(lambda: size() == [tall, tall])
    choose(page, "only", "worse")
    page.wait(lambda: size()[0] == size()[1] < tall)


WRITTEN = (
    "const texts = []; const write = CanvasRenderingContext2D.prototype.fillText;"
    "CanvasRenderingContext2D.prototype.fillText = function (text) { texts.push(text); };"
)


def many_digits(steps, path):
    """Write a report of labels whose mean is the place of a step, except for a spike in the second."""
    several = lt.History(metric="loss", label="class")
    for k, step in enumerate(steps):
        several.add(step, lt.label_stats([0, 1, 2], [1e4 if k == 1 else k] * 3), mode="eval")
    several.to_html(path)
    return path


def test_steps_that_are_times_are_exact_wherever_they_are_shown(show, tmp_path):
    first = 2**62 + 1
    page = show(many_digits([first + k for k in range(12)], tmp_path / "report.html"))
    canvas, tip = page.find("#curve"), page.find("#curve-tip")
    hover(page, canvas, 0.96)
    assert tip.text.split()[:3] == ["step", str(first + 11), "0"]
    page.js("arguments[0].focus()", canvas)
    for k in (10, 9):
        press(page, "\ue012")  # arrow left
        assert tip.text.split()[:4] == ["step", str(first + k), "0", str(k)]
    assert canvas.get_attribute("aria-label") == f"loss over steps 0 to 11, counted from {first} of 0, 1, 2"
    shown = page.js(f"{WRITTEN} document.getElementById('all').click(); return texts;")
    assert f"axis cut: step {first + 1} reaches 1e4" in [text.replace("10000", "1e4") for text in shown]
    assert f"step, counted from {first}" in shown
    assert {"0", "5", "10"} <= set(shown)
    assert page.js("return document.querySelector('#table svg path').getAttribute('d').match(/[ML]/g).length") == 12
    hover(page, page.find("#heatmap"), 0.96)
    assert page.find("#heatmap-tip").text.split("\n")[1].startswith(f"step {first + 11}: 11")
    assert f"Steps are counted from {first}." in page.find("#heat-note").text


def test_steps_too_far_apart_to_be_told_apart_by_doubles_are_all_reached(show, tmp_path):
    steps = [-(2**63), 0, 2**62, 2**62 + 1, 2**62 + 2, 2**63 - 1]
    page = show(many_digits(steps, tmp_path / "report.html"))
    canvas = page.find("#curve")
    hover(page, canvas, 0.96)
    page.js("arguments[0].focus()", canvas)
    for k in (4, 3, 2):
        press(page, "\ue012")  # arrow left
        assert page.find("#curve-tip").text.split()[:4] == ["step", str(steps[k]), "0", str(k)]
    for _ in range(80):
        press(page, "+")
    assert "NaN" not in canvas.get_attribute("aria-label")
    press(page, "0")
    assert ink(page, "curve")[0] > 100


def test_numbers_whose_difference_no_double_holds_are_drawn(show, tmp_path):
    several = lt.History(metric="loss", label="class")
    for step, size in enumerate((1.5e308, -1.7e308, 1.7e308)):
        several.add(step, lt.label_stats(np.repeat([0, 1], 30), np.repeat([size, -size], 30)), mode="eval")
    several.to_html(tmp_path / "report.html")
    page = show(tmp_path / "report.html")
    shown = page.js(WRITTEN + "document.getElementById('all').click(); return texts;")
    assert {"−1e308", "0", "1e308"} <= set(shown)
    assert not {text for text in shown if "∞" in text or "NaN" in text}
    assert "NaN" not in page.js("return document.querySelector('#table svg path').getAttribute('d')")
    assert {"+200 %", "−200 %"} == set(page.texts("#table tr.row td:nth-child(4)"))


def test_an_early_spike_does_not_flatten_the_curves_and_the_figure_says_that_it_is_cut(show, tmp_path):
    spiked = lt.History(metric="loss", label="class")
    for step in range(1, 13):
        values = [1.0 + k / 40 + 1 / step for k in range(40)]
        spiked.add(step, lt.label_stats([0, 1] * 20, [1e4 if step == 1 else values[0], *values[1:]]), mode="eval")
    spiked.to_html(tmp_path / "report.html")
    page = show(tmp_path / "report.html")
    all_steps = f"{WRITTEN} document.getElementById('all').click();"
    shown = lambda: page.js(f"{all_steps} CanvasRenderingContext2D.prototype.fillText = write; return texts;")  # noqa: E731
    assert any(text.startswith("axis cut: step 1 reaches ") for text in shown())
    page.find("#log").click()
    assert not any(text.startswith("axis cut") for text in shown())


@pytest.mark.parametrize("last", [1, 2])
def test_the_last_step_of_a_label_that_vanished_early_is_drawn_however_far_off_it_is(show, tmp_path, last):
    short = lt.History(metric="loss", label="class")
    for step in range(1, 61):
        labels = [0] * 20 + [1] * 20 * (step <= last)
        short.add(step, lt.label_stats(labels, [1.0 + 1 / step] * 20 + [1e4] * (len(labels) - 20)), mode="eval")
    short.to_html(tmp_path / "report.html")
    page = show(tmp_path / "report.html")
    drawn = """const marks = []; const arc = CanvasRenderingContext2D.prototype.arc;
        CanvasRenderingContext2D.prototype.arc = function (...where) { marks.push(where); };"""
    marks, shown = page.js(f"{WRITTEN} {drawn} document.getElementById('all').click(); return [marks, texts];")
    assert not any(text.startswith("axis cut") for text in shown)
    assert len(marks) == (last == 1)  # a single point, which no line shows; lines of many steps have no marks


def test_curves_of_thousands_of_steps_are_drawn_before_the_browser_gives_up(show, tmp_path):
    long = lt.History(metric="loss", label="class")
    for step in range(1, 3001):
        long.add(step, lt.label_stats([0, 1], [1.0 + step % 7, 2.0]), mode="eval")
    long.to_html(tmp_path / "report.html")
    page = show(tmp_path / "report.html")
    page.js("document.getElementById('all').click()")
    assert frames(page)


def test_hovering_a_curve_shows_the_values_of_a_step(show, hundred):
    page = show(hundred)
    canvas = page.find("#curve")
    hover(page, canvas, 0.96)
    tip = page.find("#curve-tip").text.split()
    assert tip[:2] == ["step", "40"]
    mean = float(page.find("#table tr.row td:nth-child(3)").text)
    assert tip[2] == "42"
    assert float(tip[3]) == pytest.approx(mean, rel=1e-3)
    page.js("arguments[0].focus()", canvas)
    press(page, "\ue012")  # arrow left
    assert page.find("#curve-tip").text.split()[:2] == ["step", "39"]


def test_curves_are_zoomed_by_dragging_buttons_and_keys(show, hundred):
    page = show(hundred)
    canvas = page.find("#curve")
    said = lambda: canvas.get_attribute("aria-label")  # noqa: E731
    assert "over steps 1 to 40 of 42" in said()
    whole = ink(page, "curve")
    drag(page, canvas, 0.6, 0.9)
    low, high = (float(word) for word in said().split("steps ")[1].split(" of ")[0].split(" to "))
    assert 15 < low < 28 < high < 39
    assert ink(page, "curve") != whole
    page.find("#all").click()
    assert "over steps 1 to 40" in said()
    page.find("#in").click()
    assert "over steps 10.75 to 30.25" in said()
    page.find("#out").click()
    assert "over steps 1 to 40" in said()
    page.js("arguments[0].focus()", canvas)
    press(page, "+")
    assert "over steps 10.75 to 30.25" in said()
    press(page, "0")
    assert "over steps 1 to 40" in said()


def test_bands_axes_and_modes_are_chosen(show, hundred):
    page = show(hundred)
    seen = {ink(page, "curve")[1]}
    for value in ("std", "range", "none"):
        choose(page, "band", value)
        seen.add(ink(page, "curve")[1])
    page.find("#log").click()
    seen.add(ink(page, "curve")[1])
    page.find("#tracks label:nth-child(2) input").click()
    seen.add(ink(page, "curve")[1])
    assert len(seen) == 6


def test_the_heatmap_says_what_is_under_the_pointer_and_a_click_draws_it(show, hundred):
    page = show(hundred)
    page.wait(lambda: not page.js("return document.getElementById('heat').hidden"))
    canvas = page.find("#heatmap")
    hover(page, canvas)
    name, step = page.find("#heatmap-tip").text.split("\n")
    assert step.startswith("step 2")
    canvas.click()
    assert page.texts("#chosen bdi")[-1] == name
    before = ink(page, "heatmap")
    page.js(
        "const box = document.getElementById('scale'); box.value = 'common'; box.dispatchEvent(new Event('change'))"
    )
    assert ink(page, "heatmap")[1] != before[1]


def test_the_samples_of_the_label_in_focus_are_drawn(show, planted):
    page = show(planted)
    assert page.find("#histogram-note").text.startswith("123: 500 samples before, 500 after, step 3 to step 4.")
    before = ink(page, "histogram")
    hover(page, page.find("#histogram"), 0.15)
    assert "before" in page.find("#histogram-tip").text
    page.js("scrollTo(0, 0)")
    page.find("#table tr.row:nth-child(2)").click()
    assert not page.find("#histogram-note").text.startswith("123:")
    assert ink(page, "histogram") != before


def test_names_are_text_whatever_they_contain(show, tmp_path):
    history(5, 6, mapping=EVIL, worse=1).to_html(tmp_path / "report.html", title="<b>bold</b>")
    page = show(tmp_path / "report.html")
    assert page.driver.title == "<b>bold</b>"
    assert sorted(
        page.js("return [...document.querySelectorAll('#table td:first-child bdi')].map((one) => one.textContent)")
    ) == sorted(name.replace("\n", "\\n").replace("\u202e", "\\u202e") for name in EVIL)
    assert page.js("return document.querySelectorAll('img, b').length") == 0
    press(page, "/")
    press(page, "سوداء")
    assert page.find("#found").text == "1 of 5 labels"


def test_ten_thousand_labels_are_usable(show, tmp_path):
    history(10_000, 20, samples=3).to_html(tmp_path / "report.html")
    page = show(tmp_path / "report.html")
    assert frames(page)[0] < 3000 * SLOWNESS
    assert page.js("return document.querySelectorAll('#table tr').length") < 100
    start = time.monotonic()
    page.find("th[data-key=after] button").click()
    page.find("#search").send_keys("999")
    assert page.find("#found").text == "19 of 10,000 labels"
    page.find("#search").send_keys("\ue003\ue003\ue003")  # backspace
    page.js("document.getElementById('scroller').scrollTop = 150000")
    page.wait(lambda: page.js("return Number(document.querySelector('#table tr.row').dataset.place)") > 4000)
    assert time.monotonic() - start < 5 * SLOWNESS


def test_a_thousand_labels_and_a_hundred_steps_show_within_a_second(show, tmp_path):
    path = tmp_path / "report.html"
    history(1000, 100, samples=3).to_html(path)
    assert path.stat().st_size < 2.5e6
    assert min(frames(show(path))[0] for _ in range(3)) < 1000 * SLOWNESS


def test_samples_that_are_not_finite_are_not_counted_and_the_page_says_so(show, tmp_path):
    with lt.LabelTracker("class", "loss", record_to=tmp_path / "run") as tracker:
        for step, last in ((1, 2.0), (2, np.nan)):
            tracker.update([0] * 30, np.r_[np.linspace(1, 2, 28), last, last])
            tracker.end_epoch(step)
    write_report(tmp_path / "run", tmp_path / "report.html")
    page = show(tmp_path / "report.html")
    said = "0: 30 samples before, 28 after, step 1 to step 2. Those that are not finite are left out."
    assert page.find("#histogram-note").text == said
    with lt.LabelTracker("class", "loss", record_to=tmp_path / "infinite") as tracker:
        for step in (1, 2):
            tracker.update([0] * 30 + [1] * 30, np.r_[np.full(30, np.inf), np.linspace(1, 2, 30)])
            tracker.end_epoch(step)
    write_report(tmp_path / "infinite", tmp_path / "report.html")
    page = show(tmp_path / "report.html")
    page.find("#search").send_keys("0")
    said = "The samples of 0 are not in this page: they are not all finite, or there are too many labels."
    assert page.find("#histogram-note").text == f"{said} It has those of 1."
    assert "no samples, or a mean that is not finite, are left blank" in page.find("#heat-note").text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_follow_the_scheme_of_the_browser_and_fit_a_phone(show, hundred, scheme):
    page = show(hundred, 400, 800, prefers_color_scheme=scheme)
    background = page.js("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")
    assert page.js("return document.documentElement.scrollWidth") <= 400
    assert in_view(page, "h1")
    assert in_view(page, "#table tr.row")


def test_printed_pages_have_the_table_and_the_figures(show, hundred):
    page = show(hundred)
    whole = ink(page, "curve")
    page.js("dispatchEvent(new Event('beforeprint'))")
    assert len(page.names()) == 100
    assert ink(page, "curve")[0] > 2 * whole[0]  # more pixels
    page.js("dispatchEvent(new Event('afterprint'))")
    assert len(page.names()) < 60
    assert ink(page, "curve") == whole
    printed = page.driver.execute_cdp_cmd("Page.printToPDF", {})
    assert len(printed["data"]) > 50_000
