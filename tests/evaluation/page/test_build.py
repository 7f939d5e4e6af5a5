"""The page of a run: what is gathered for it, and how it behaves in a browser."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from evaluation.page import build as page
from evaluation.runner.figures import write_report
from tests.support.browser import CHROMIUM, Browser
from tests.support.runs import SIZE, disc, make_data, right, write_run
from vision_reasoner.errors import ImageError
from vision_reasoner.geometry import Box
from vision_reasoner.masks import decode_mask, encode_mask
from vision_reasoner.results import Instance, Status

HOSTILE = (
    '</script><script>window.harmed = 1</script><img src="x" onerror="window.harmed = 1"><!-- \u2028 \ud800 &lt;b&gt;'
)


def data_of(file):
    """The JSON inside a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text(), re.S)
    assert found is not None
    return json.loads(found[1])


def various(sample):
    """Right, wrong and useless answers: 0 fails, 1 is none of it, 2 cut off, 3 hostile, 6 unusable."""
    if sample.index == 0:
        return ImageError("the picture is damaged; get it again")
    if sample.index == 1:
        return right(sample, instances=[], status=Status.NONE)
    if sample.index == 2:
        return right(sample, status=Status.TRUNCATED, warnings=["the reply ended inside the answer"])
    if sample.index == 3:
        return right(sample, thinking=HOSTILE, reply=HOSTILE)
    if sample.index == 6:
        return right(sample, instances=[], status=Status.NO_ANSWER, thinking="", reply="I do not know.")
    return right(sample)


@pytest.fixture
def run(tmp_path):
    data = make_data(tmp_path / "data", "segmentation", 12)
    folder = write_run(tmp_path / "run", "segmentation", data, various)
    write_report(folder)
    return folder


# --- what is gathered -------------------------------------------------------------------------------------------------
def test_the_page_has_every_sample_in_the_order_of_the_data_set(run):
    data = data_of(run / "report.html")
    assert [sample["index"] for sample in data["samples"]] == list(range(12))
    assert (data["n"], data["errors"]) == (12, 1)
    failed, none, *others = data["samples"]
    assert (failed["status"], failed["quality"], failed["score"]) == ("error", None, "–")
    assert "damaged" in failed["error"]
    assert (none["quality"], none["score"], none["measure"]) == (0.0, "0.00", "IoU")
    assert others[2]["quality"] == 1.0
    assert others[0]["warnings"] == ["the reply ended inside the answer"]
    assert others[2]["seconds"] == pytest.approx(0.34)


def test_figures_come_with_intervals_and_what_was_published_the_best_first(run):
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["figures"][0]["published"] = {"LISA-7B": 0.4, "VisionReasoner-7B": 0.66}
    (run / "metrics.json").write_text(json.dumps(metrics))
    figures = data_of(page.write_page(run))["figures"]
    assert [figure["name"] for figure in figures] == [figure["name"] for figure in metrics["figures"]]
    assert figures[0]["published"] == [["VisionReasoner-7B", 0.66], ["LISA-7B", 0.4]]
    assert figures[0]["low"] <= figures[0]["value"] <= figures[0]["high"]


def test_what_was_run_stands_there_without_where_things_lie(run):
    facts = dict(data_of(run / "report.html")["facts"])
    assert ["samples", "12 of 12"] in facts["data"]
    assert any(name == "fingerprint" and len(value) == 64 for name, value in facts["data"])
    assert ["reasoner", "Toy"] in facts["checkpoint"]
    assert ["torch", "2.15.0"] in facts["versions"]
    assert str(run.parent) not in (run / "report.html").read_text()


def test_rows_that_share_a_picture_share_its_thumbnail(run):
    data = data_of(run / "report.html")
    assert data["samples"][0]["picture"] == data["samples"][1]["picture"] == 0
    assert len(data["pictures"]) == 11


def test_masks_are_those_of_truth_and_prediction(run):
    samples = data_of(run / "report.html")["samples"]
    assert np.array_equal(decode_mask(samples[5]["true_mask"]), disc(5))
    assert samples[5]["mask"] == samples[5]["true_mask"]
    assert (samples[1]["mask"], samples[4]["true_mask"]) == (None, None)


def test_without_its_data_set_a_page_has_no_pictures_and_says_so(run):
    for file in (run.parent / "data").iterdir():
        file.unlink()
    data = data_of(page.write_page(run))
    assert data["pictures"] == []
    assert all(sample["picture"] is None for sample in data["samples"])
    assert "no such data set" in data["remarks"][0]


def test_pictures_of_a_data_set_that_has_changed_are_not_shown(run):
    Image.new("RGB", SIZE).save(run.parent / "data/3.png")
    data = data_of(page.write_page(run))
    assert data["pictures"] == []
    assert "has changed" in data["remarks"][0]


@pytest.mark.parametrize(
    ("suite", "kinds", "score"),
    [
        ("segmentation", ["histogram", "statuses", "histogram"], "1.00"),
        ("detection", ["histogram", "statuses", "histogram"], "1.00"),
        ("counting", ["matrix", "statuses", "histogram"], "exact"),
        ("vqa", ["histogram", "statuses", "histogram"], "1.00"),
    ],
)
def test_each_suite_has_its_plots(tmp_path, suite, kinds, score):
    folder = write_run(tmp_path / "run", suite, make_data(tmp_path / "data", suite, 6))
    write_report(folder)
    data = data_of(folder / "report.html")
    assert [plot["kind"] for plot in data["plots"]] == kinds
    assert {sample["score"] for sample in data["samples"]} == {score}


def test_confidences_have_a_reliability_and_a_precision_recall_curve(tmp_path):
    def sure(sample):
        found = [replace(one, votes=(2, 2), confidence=0.9) for one in right(sample).instances]
        return right(sample, instances=[*found, Instance(Box(88, 2, 95, 9), votes=(1, 2), confidence=0.3)])

    folder = write_run(tmp_path / "run", "detection", make_data(tmp_path / "data", "detection", 6), sure)
    write_report(folder)
    reliability, curve = data_of(folder / "report.html")["plots"][-2:]
    assert (reliability["kind"], curve["kind"]) == ("curve", "curve")
    assert reliability["points"] == [[0.3, 0.0, "6 objects"], [0.9, 1.0, "6 objects"]]
    assert curve["points"] == [[1.0, 1.0, "confidence 0.90"], [1.0, 0.5, "confidence 0.30"]]


def test_a_run_of_errors_alone_has_a_page(tmp_path):
    data = make_data(tmp_path / "data", "counting", 3)
    folder = write_run(tmp_path / "run", "counting", data, lambda _: RuntimeError("out of memory"))
    write_report(folder)
    found = data_of(folder / "report.html")
    assert [plot["kind"] for plot in found["plots"]] == ["statuses"]
    assert found["figures"] == []


def test_of_too_many_samples_the_worst_and_some_others_are_kept(run):
    data = data_of(page.write_page(run, most=6))
    kept = [sample["index"] for sample in data["samples"]]
    assert len(kept) == 6
    assert {0, 1, 6} <= set(kept)
    assert "6 of the 12" in data["remarks"][0]
    statuses = next(plot for plot in data["plots"] if plot["kind"] == "statuses")
    assert sum(statuses["counts"]) == 12, "distributions are of all"


def test_a_histogram_counts_every_value_once():
    assert page._histogram([0.0, 0.1, 0.15, 0.999, 1.0, 7.0], [i / 10 for i in range(11)]) == [1, 2, *[0] * 6, 0, 3]


def test_slow_samples_are_together_in_the_last_bin():
    values = [1.0] * 99 + [500.0]
    plot = page._seconds([{"seconds": value, "timings": {"think": value}} for value in values])
    assert plot["open"]
    assert plot["counts"][-1] == 1
    assert sum(plot["counts"]) == 100
    assert len(plot["counts"]) < 20
    assert plot["median"] == 1.0


def test_the_confusion_of_counts_ends_in_that_many_and_more():
    plot = page._confusion([(0, 0), (2, 3), (2, 3), (40, 12), (50, 60)])
    cells = np.array(plot["cells"])
    assert cells.shape == (13, 13)
    assert (cells[0, 0], cells[2, 3], cells[12, 12], cells.sum()) == (1, 2, 2, 5)
    assert plot["open"]
    assert plot["note"] == "1 exact, 1 too few, 3 too many"


def test_a_thumbnail_has_the_picture_in_no_more_than_its_pixels():
    picture = Image.linear_gradient("L").resize((800, 400)).convert("RGB")
    uri = page.thumbnail(picture, 20_000)
    kind, data = uri.split(",")
    assert kind == "data:image/webp;base64"
    small = Image.open(io.BytesIO(base64.b64decode(data)))
    assert small.size == (200, 100)
    difference = np.abs(np.asarray(small, int) - np.asarray(picture.resize((200, 100)), int))
    assert difference.mean() < 4
    assert Image.open(io.BytesIO(base64.b64decode(page.thumbnail(picture, 10**9).split(",")[1]))).size == (800, 400)


def test_a_very_long_picture_has_a_thumbnail():
    uri = page.thumbnail(Image.new("RGB", (1, 20_000)), 90_000)
    assert max(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size) == 16_383


def test_a_small_mask_keeps_thin_lines():
    mask = np.zeros((2000, 1000), bool)
    mask[700:702] = True
    small = page.small_mask(mask)
    assert small is not None
    assert small["size"] == [384, 192]
    assert decode_mask(small).all(axis=1).sum() == 1
    assert page.small_mask(np.zeros((5, 5), bool)) is None


def test_texts_cannot_leave_the_data(run):
    text = (run / "report.html").read_text()
    template = page.TEMPLATE.read_text()
    assert text.count("<script") == template.count("<script")
    assert text.count("<img") == template.count("<img")
    inside = re.search(r'id="data">(.*?)</script>', text, re.S)
    assert inside is not None
    assert "<" not in inside[1]
    assert data_of(run / "report.html")["samples"][3]["reply"] == HOSTILE


def test_the_policy_admits_its_own_script_and_style_alone(run):
    text = (run / "report.html").read_text()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    for tag in ("style", "script"):
        found = re.search(f"<{tag}>(.*?)</{tag}>", text, re.S)
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


def test_nothing_is_loaded_from_elsewhere():
    addresses = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'`)]*", page.TEMPLATE.read_text())
    assert set(addresses) <= {"http://www.w3.org/2000/svg"}


# --- in a browser -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no chromium here")
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The page of 130 samples."""
    folder = tmp_path_factory.mktemp("many")
    data = make_data(folder / "data", "segmentation", 130)
    write_run(folder / "run", "segmentation", data, various)
    write_report(folder / "run")
    return folder / "run/report.html"


def show_gallery(browser):
    """Scroll down to it and wait for a picture."""
    browser.run("document.getElementById('samples-title').scrollIntoView({behavior: 'instant'})")
    browser.wait("document.querySelector('.card canvas[data-painted]')")


@pytest.fixture
def opened(chromium, many):
    """The page in a browser; nothing may have gone wrong in the end."""
    chromium.problems.clear()
    chromium.open(many)
    show_gallery(chromium)
    yield chromium
    chromium.run("0")  # what was said meanwhile arrives
    assert chromium.problems == []


SHOWN = "[...document.querySelectorAll('.card')].map((card) => card.dataset.id)"


def choose(browser, element, value):
    """Give a control a value as a person does."""
    browser.run(
        f"{{const control = document.getElementById('{element}'); control.value = '{value}';"
        "control.dispatchEvent(new Event(control.tagName === 'SELECT' ? 'change' : 'input', {bubbles: true}))}"
    )


def test_the_gallery_shows_the_worst_first_and_reorders(opened):
    assert opened.run(SHOWN)[:3] == ["p0/1", "p0/2", "p6/1"], "what failed before what is wrong"
    choose(opened, "sort", "order")
    assert opened.run(SHOWN)[:3] == ["p0/1", "p0/2", "p2/1"]
    choose(opened, "sort", "slowest")
    assert opened.run(SHOWN)[0] == "p129/1"
    choose(opened, "sort", "best")
    assert opened.run(SHOWN)[0] == "p2/1"


def test_status_and_text_filter_the_gallery(opened):
    opened.run("document.querySelector('#status [value=truncated]').click()")
    assert opened.run(SHOWN) == ["p2/1"]
    assert opened.run("document.getElementById('shown').textContent") == "1 of 130 samples"
    choose(opened, "search", "nothing is called that")
    assert opened.run(SHOWN) == []
    assert "No sample" in opened.run("document.getElementById('gallery').textContent")
    opened.run("document.querySelector('#status [value=\"\"]').click()")
    choose(opened, "search", "SAMPLE 12 of ")
    assert opened.run(SHOWN) == ["p12/1"]
    choose(opened, "search", "i do not know")  # in a reply
    assert opened.run(SHOWN) == ["p6/1"]
    choose(opened, "search", "damaged")  # in an error
    assert opened.run(SHOWN) == ["p0/1"]


def test_a_bar_narrows_the_gallery_to_its_samples_and_a_second_click_lets_go(opened):
    bar = "document.querySelector('#plots [role=button]')"
    opened.run(f"{bar}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    assert sorted(opened.run(SHOWN)) == ["p0/2", "p6/1"]
    assert opened.run(f"{bar}.getAttribute('aria-pressed')") == "true"
    opened.run(f"{bar}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter'}}))")
    assert len(opened.run(SHOWN)) > 40
    opened.run(f"{bar}.dispatchEvent(new MouseEvent('click', {{bubbles: true}}))")
    opened.run("document.getElementById('range').click()")
    assert len(opened.run(SHOWN)) > 40
    assert opened.run("document.getElementById('range').hidden")


def test_cards_are_made_as_one_scrolls_and_only_those_near_are_painted(opened):
    assert len(opened.run(SHOWN)) < 130
    first = "document.querySelector('.card canvas')"
    assert opened.run(f"{first}.width") > 0
    for _ in range(8):
        opened.run("window.scrollTo({top: document.body.scrollHeight, behavior: 'instant'})")
        opened.run("new Promise((done) => setTimeout(done, 100))")
    opened.wait("document.querySelectorAll('.card').length === 130")
    opened.wait("[...document.querySelectorAll('.card canvas')].at(-1).width > 0")
    opened.wait(f"{first}.width === 0")
    show_gallery(opened)
    opened.wait(f"{first}.width > 0")


def test_masks_are_drawn_where_they_are(opened):
    shape = (37, 53)
    rng = np.random.default_rng(0)
    for share in (0.02, 0.5, 1):
        mask = rng.random(shape) < share
        encoded = encode_mask(mask)
        read = opened.run(
            f"{{const mask = bitmap({encoded['size']}, {json.dumps(encoded['counts'])});"
            "const copy = layer(mask.width, mask.height, (on) => on.drawImage(mask, 0, 0)).getContext('2d');"
            "[...copy.getImageData(0, 0, mask.width, mask.height).data].filter((_, i) => i % 4 === 3)}"
        )
        assert np.array_equal(np.array(read).reshape(shape) > 0, mask)

    def colors():
        return opened.run(
            "(async () => {const sample = data.samples[5], canvas = document.createElement('canvas');"
            "const ctx = canvas.getContext('2d', {willReadFrequently: true}); await paint(canvas, sample, 96, 64);"
            "return [[55, 30], [5, 60]].map(([x, y]) => [...ctx.getImageData(x, y, 1, 1).data.slice(0, 3)])})()"
        )

    (over, beside) = colors()
    opened.run("document.querySelector('.layers [name=found]').click()")
    (without, beside_too) = colors()
    assert disc(5)[30, 55]
    assert beside == beside_too
    assert abs(over[1] - without[1]) > 20, "the prediction's veil is off"
    opened.run("document.querySelector('.layers [name=truth]').click()")
    (plain, _) = colors()
    assert np.allclose(plain, (250, 200, 40), atol=25)
    assert plain != without


def test_a_sample_opens_with_all_its_texts_and_neighbours(opened):
    choose(opened, "sort", "order")
    choose(opened, "search", "sample")
    opened.run("document.querySelectorAll('.card .picture')[2].click()")
    opened.wait("document.querySelector('#sample canvas[data-painted=\"p2/1\"]')")
    text = opened.run("document.getElementById('dialog').innerText")
    for words in ("p2/1", "truncated", "sample 2 of them", "I look at image 2.", "<think>", "ended inside", "IoU"):
        assert words in text
    assert opened.run("location.hash") == "#p2%2F1"
    opened.run("document.getElementById('next').click()")
    opened.wait("document.getElementById('dialog-id').textContent === 'p3/1'")
    opened.run("document.getElementById('close').click()")
    opened.wait("!document.getElementById('dialog').open")
    opened.wait("location.hash === ''")  # cleared by the dialog's close event, a little later


def test_hostile_texts_are_shown_and_do_nothing(opened):
    opened.run("openSample(data.samples[3])")
    shown = opened.run("document.querySelector('#sample pre').textContent")
    assert shown.startswith("</script><script>window.harmed = 1</script><img")
    assert opened.run("window.harmed") is None
    assert opened.run("document.querySelectorAll('#sample img, #gallery img, #sample script').length") == 0


def test_the_table_has_every_figure_with_its_interval(opened, many):
    figures = json.loads((many.parent / "metrics.json").read_text())["figures"]
    rows = opened.run("[...document.querySelectorAll('#figures tbody tr:not(.group)')].map((row) => row.innerText)")
    assert len(rows) == len(figures)
    first = figures[0]
    words = [first["name"], *(f"{100 * first[key]:.1f}" for key in ("value", "low", "high"))]
    assert all(word in rows[0] for word in words)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True), (320, False)])
def test_nothing_is_wider_than_the_window(chromium, many, width, dark):
    chromium.problems.clear()
    chromium.open(many, width=width, height=800, dark=dark)
    show_gallery(chromium)
    assert chromium.run("document.documentElement.scrollWidth") <= width
    chromium.run("openSample(data.samples[3])")
    assert chromium.run("document.getElementById('dialog').scrollWidth") <= width
    assert chromium.problems == []


def test_texts_are_legible_on_their_ground_in_light_and_dark(chromium, many):
    contrasts = """(() => {
      const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
        .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const probe = document.body.appendChild(document.createElement('i'));
      const value = (name) => { probe.style.color = `var(${name})`; return light(getComputedStyle(probe).color); };
      return ['--ink', '--soft', '--accent'].flatMap((ink) => ['--paper', '--panel'].map((ground) => {
        const [low, high] = [value(ink), value(ground)].sort((a, b) => a - b); return (high + 0.05) / (low + 0.05); }));
    })()"""
    for dark in (False, True):
        chromium.open(many, dark=dark)
        assert min(chromium.run(contrasts)) >= 4.5  # WCAG AA


def test_it_prints_on_paper(chromium, many):
    chromium.problems.clear()
    chromium.open(many)
    show_gallery(chromium)
    printed = base64.b64decode(chromium.call("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF")
    assert 2 < printed.count(b"/Type /Page\n") < 60
    assert printed.count(b"/Subtype /Image") >= 48, "every card's picture is printed, those out of sight too"
    assert chromium.problems == []
