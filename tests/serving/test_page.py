"""The page in a real browser, by doing what a person does: look, ask, correct, save, download; and how it looks."""

import json
import re
import threading
import time

import pytest
from PIL import Image

from tests.support.browser import CHROMIUM, Browser
from tests.support.service import serving, wait_until
from vision_reasoner.masks import box_around, decode_mask

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


class Person:
    """Does in the page what a person does, by the pointer and the keyboard."""

    def __init__(self, browser, client):
        self.browser, self.client = browser, client
        self.run, self.wait = browser.run, browser.wait

    def visit(self, **window):
        self.browser.visit(self.client.url, **window)
        self.wait("document.getElementById('state').textContent === 'ready'")
        self.wait("document.querySelectorAll('#examples button').length === 4")

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def click(self, selector):
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'nearest'});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        self.press(x, y)

    def press(self, x, y, *way):
        """Press the pointer, move it along the way, and let go."""
        for kind, (px, py) in [
            ("mouseMoved", (x, y)),
            ("mousePressed", (x, y)),
            *(("mouseMoved", place) for place in way),
            ("mouseReleased", (way or [(x, y)])[-1]),
        ]:
            buttons = {} if kind == "mouseMoved" and (px, py) == (x, y) else {"button": "left", "clickCount": 1}
            self.browser.call("Input.dispatchMouseEvent", type=kind, x=px, y=py, **buttons)

    def key(self, key, **modifiers):
        flags = 2 * modifiers.get("ctrl", False) + 8 * modifiers.get("shift", False) + modifiers.get("alt", False)
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r", "windowsVirtualKeyCode": 13} if key == "Enter" and kind == "keyDown" else {}
            self.browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=flags, **text)

    def type(self, selector, text):
        self.run(f"(e => {{ e.focus(); e.select(); }})(document.querySelector({json.dumps(selector)}))")
        self.browser.call("Input.insertText", text=text)

    def at(self, x, y):
        """Where a place of the picture is on the screen."""
        return tuple(
            self.run(
                "(() => { const s = document.getElementById('view'), r = s.getBoundingClientRect();"
                "const v = s.viewBox.baseVal;"
                f"return [r.x + ({x} - v.x) * r.width / v.width, r.y + ({y} - v.y) * r.height / v.height]; }})()"
            )
        )

    def boxes(self):
        return self.run(
            "[...document.querySelectorAll('#view .object')].sort((a, b) => a.dataset.id - b.dataset.id)"
            ".map(g => g.querySelector('.box'))"
            ".map(b => ['x', 'y', 'width', 'height'].map(n => Number(b.getAttribute(n))))"
        )

    def choose(self, file, picture, **options):
        """Save a picture and choose its file."""
        picture.save(file, **options)
        root = self.browser.call("DOM.getDocument")["root"]["nodeId"]
        node = self.browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
        self.wait("!document.getElementById('go').disabled")

    def example(self, number=1):
        self.click(f"#examples li:nth-child({number}) button")
        self.wait("document.querySelector('#headline b')")


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("project") / "corrections") as started:
        yield started


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def person(browser, client):
    browser.problems.clear()
    person = Person(browser, client)
    person.visit()
    yield person
    unexpected = [p for p in browser.problems if not re.match(rf"request: (blob:)?{client.url}", p)]
    assert unexpected == []


# The examples are of 640 x 480 pixels; `Writes` names boxes at a tenth to a half, and at a half to three quarters.
FIRST, SECOND = [64, 48, 256, 192], [320, 240, 160, 120]


def test_an_example_shows_objects_thinking_and_a_large_count(person):
    person.example()
    assert person.text("#headline").split("\n")[0] == "2"
    assert person.boxes() == [FIRST, SECOND]
    assert person.run("document.querySelectorAll('#view .object image[href^=data]').length") == 2
    assert person.text("#thinking") == "I look: (210,210) and [420,420,630,630]."
    assert person.run("document.querySelectorAll('#thinking mark').length") == 2


def test_a_file_is_chosen_and_asked_about_by_the_keyboard(person, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    person.choose(tmp_path / "mine.jpg", Image.new("RGB", (200, 300), (90, 120, 60)), exif=exif)
    person.type("#query", "the dogs")
    person.key("Enter")
    person.wait("document.querySelector('#headline b')")
    assert person.boxes() == [[30, 20, 120, 80], [150, 100, 75, 50]]


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_is_dropped_or_pasted(person, way):
    person.run(
        """(async (way) => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 320, height: 160 });
          const blob = await new Promise((resolve) => canvas.toBlob(resolve));
          const files = new DataTransfer();
          files.items.add(new File([blob], "a.png", { type: "image/png" }));
          const event = way === "drop" ? new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true })
            : new ClipboardEvent("paste", { clipboardData: files, bubbles: true });
          document.getElementById("drop").dispatchEvent(event);
        })"""
        + f"({json.dumps(way)})"
    )
    person.wait("!document.getElementById('tools').hidden")
    assert person.run("document.querySelector('#view image').getAttribute('width')") == "320"


def test_a_file_that_is_no_picture_is_refused_in_words(person, tmp_path):
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    root = person.browser.call("DOM.getDocument")["root"]["nodeId"]
    node = person.browser.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
    person.browser.call("DOM.setFileInputFiles", nodeId=node, files=[str(tmp_path / "a.pdf")])
    person.wait("!document.getElementById('error').hidden")
    assert "no picture that the browser can show" in person.text("#error")


def test_nothing_there_and_errors_are_said_in_words(person):
    person.example()
    person.type("#query", "nothing")
    person.click("#go")
    person.wait("document.querySelector('#headline').innerText.startsWith('Nothing there')")
    person.type("#query", "edit")
    person.click("#go")
    person.wait("!document.getElementById('error').hidden")
    assert person.text("#error") == "It asks for editing."


def test_a_request_can_be_stopped(person):
    person.example()
    person.client.reasoner.stopped.clear()
    person.type("#query", "slow")
    person.click("#go")
    person.wait("document.getElementById('headline').innerText === 'Thinking…'")
    person.click("#stop")
    person.wait("document.getElementById('headline').innerText === 'Stopped.'")
    wait_until(person.client.reasoner.stopped.is_set)


def test_an_object_lights_up_in_picture_list_and_thinking(person):
    person.example()
    person.browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=0, y=0)
    x, y = person.at(400, 300)
    person.browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    person.wait("document.querySelectorAll('.object.on').length === 1")
    on = "[...document.querySelectorAll('.on')].map(e => e.dataset.id)"
    assert len(set(person.run(on))) == 1
    assert person.run("document.querySelector('#thinking mark.on').innerText") == "[420,420,630,630]"
    assert person.run("document.querySelector('#objects li.on .number').innerText") == "2"


def test_boxes_are_moved_resized_deleted_added_and_it_is_undone(person):
    person.example()
    person.press(*person.at(150, 200), person.at(170, 215), person.at(190, 230))
    assert person.boxes()[0] == pytest.approx([104, 78, 256, 192], abs=1)
    person.press(
        *person.at(*[sum(p) for p in zip(person.boxes()[0][:2], person.boxes()[0][2:], strict=True)]),
        person.at(300, 220),
        person.at(280, 210),
    )
    assert person.boxes()[0] == pytest.approx([104, 78, 176, 132], abs=2)
    person.wait("!document.querySelector('.object.busy')")
    person.key("ArrowRight")
    person.key("ArrowDown", shift=True)
    person.key("ArrowLeft", alt=True)
    x, y, width, height = person.boxes()[0]
    assert [x, y, width, height] == pytest.approx([105, 88, 175, 132], abs=2)
    person.key("Delete")
    assert person.boxes() == [SECOND]
    assert person.text("#headline").split("\n")[0] == "1"
    person.click("[data-tool=add]")
    person.press(*person.at(500, 60), person.at(550, 100), person.at(600, 140))
    person.wait("!document.querySelector('.object.busy') && document.querySelectorAll('.object').length === 2")
    assert person.boxes()[1] == pytest.approx([500, 60, 100, 80], abs=2)
    for _ in range(7):
        person.key("z", ctrl=True)
    assert person.boxes() == [FIRST, SECOND]
    assert person.run("document.getElementById('undo').disabled")


def test_a_click_makes_an_object_with_its_mask_and_moves_a_point(person):
    person.example()
    person.click("[data-tool=add]")
    person.press(*person.at(560, 80))
    person.wait("document.querySelectorAll('.object').length === 3 && !document.querySelector('.object.busy')")
    assert person.run("document.querySelectorAll('#view .object image[href^=data]').length") == 3
    assert person.client.segmenter.points[-1] == pytest.approx((560, 80), abs=1)
    person.click("[data-tool=point]")
    person.press(*person.at(110, 100))
    wait_until(lambda: person.client.segmenter.points[-1] == pytest.approx((110, 100), abs=1))


def test_the_wheel_zooms_where_the_pointer_is_and_dragging_pans(person):
    person.example()
    x, y = person.at(400, 300)
    person.browser.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-600)
    person.wait("document.getElementById('view').viewBox.baseVal.width < 500")
    assert person.at(400, 300) == pytest.approx((x, y), abs=3), "the event has whole pixels, three times enlarged"
    person.press(*person.at(300, 250), person.at(320, 250), person.at(340, 250))
    assert person.at(400, 300)[0] > x + 20
    person.click("#fit")
    assert person.at(400, 300) == pytest.approx((x, y), abs=1)
    assert person.boxes() == [FIRST, SECOND]


def test_layers_and_objects_are_hidden_and_shown(person):
    person.example()
    visible = (
        "[...document.querySelectorAll('.object image')].filter(e => e.getAttribute('visibility') === 'visible').length"
    )
    person.click("[data-layer=masks]")
    assert person.run(visible) == 0
    person.click("[data-layer=masks]")
    person.click("#objects li:nth-child(1) .tiny")
    assert person.run("document.querySelectorAll('.object[display=none]').length") == 1
    person.run("(e => { e.value = 90; e.dispatchEvent(new Event('input')); })(document.getElementById('opacity'))")
    assert person.run("document.querySelector('.object image').getAttribute('opacity')") == "0.9"


def test_what_is_corrected_is_saved_with_its_words_and_taken_away(person, tmp_path):
    person.example()
    person.type("#objects li:nth-child(2) input", "Kringel")
    person.key("Tab")
    person.click("#objects li:nth-child(1) .number")
    person.key("Delete")
    person.click("#save")
    person.wait("document.getElementById('saved').innerText.startsWith('Saved: 1 in corrections/segmentation.jsonl')")
    [line] = (person.client.service.corrections.folder / "segmentation.jsonl").read_text().splitlines()
    [kept] = json.loads(line)["instances"]
    assert (kept["label"], kept["box"]) == ("Kringel", [320, 240, 480, 360])
    person.browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    person.run("document.getElementById('format').value = 'coco'")
    person.click("#download")
    wait_until(lambda: list(tmp_path.glob("*-coco.zip")))


@pytest.fixture
def gate(person, monkeypatch):
    """Opened, masks are made; closed at first."""
    opened, masks = threading.Event(), person.client.segmenter.masks

    def held(*arguments):
        opened.wait(60)
        return masks(*arguments)

    monkeypatch.setattr(person.client.segmenter, "masks", held)
    yield opened
    opened.set()


def test_saving_waits_for_the_masks_of_moved_boxes(person, request):
    person.example(3)
    gate = request.getfixturevalue("gate")
    person.press(*person.at(150, 200), person.at(170, 215), person.at(190, 230))
    x, y, width, height = person.boxes()[0]
    person.click("#save")
    time.sleep(0.5)
    assert not person.text("#saved")
    gate.set()
    person.wait("document.getElementById('saved').innerText.startsWith('Saved')")
    lines = (person.client.service.corrections.folder / "segmentation.jsonl").read_text().splitlines()
    kept = json.loads(lines[-1])["instances"][0]
    assert box_around(decode_mask(kept["mask"])) == tuple(kept["box"]) == (x, y, x + width, y + height)


def test_an_undone_change_has_the_mask_of_its_box(person):
    person.example(4)
    person.click("#objects li:nth-child(1) .number")
    person.key("ArrowRight", shift=True)
    person.key("ArrowRight", shift=True)
    person.key("z", ctrl=True)
    person.wait("!document.querySelector('.object.busy')")
    person.click("#save")
    person.wait("document.getElementById('saved').innerText.startsWith('Saved')")
    lines = (person.client.service.corrections.folder / "segmentation.jsonl").read_text().splitlines()
    kept = json.loads(lines[-1])["instances"][0]
    assert kept["box"] == [74, 48, 330, 240]
    assert box_around(decode_mask(kept["mask"])) == tuple(kept["box"])


def test_a_mask_that_comes_late_is_of_no_other_picture(person, request, tmp_path):
    person.example()
    gate = request.getfixturevalue("gate")
    person.press(*person.at(150, 200), person.at(170, 215), person.at(190, 230))
    person.wait("document.querySelector('.object.busy')")
    time.sleep(0.5)
    person.choose(tmp_path / "other.png", Image.new("RGB", (200, 100), (90, 120, 60)))
    gate.set()
    time.sleep(0.5)
    person.type("#query", "the dogs")
    person.key("Enter")
    person.wait("document.querySelector('#headline b')")
    assert person.boxes()[0] == [20, 10, 80, 40], "of the picture that is shown"


def test_a_picture_that_the_server_has_forgotten_is_sent_again(person):
    person.example()
    person.client.service.pictures._kept.clear()
    person.click("#save")
    person.wait("document.getElementById('saved').innerText.startsWith('Saved')")
    person.browser.problems.remove(next(problem for problem in person.browser.problems if "status of 404" in problem))


def test_a_key_is_asked_for_and_kept(browser):
    with serving(api_key="a secret") as client:
        person = Person(browser, client)
        browser.visit(client.url)
        person.wait("document.getElementById('key').open")
        person.type("#secret", "a secret")
        person.key("Enter")
        person.wait("!document.getElementById('key').open")
        person.example()
        assert person.boxes() == [FIRST, SECOND]


def test_everything_has_a_name_for_screen_readers_and_can_be_reached_by_keyboard(person):
    person.example()
    nameless = person.run(
        "[...document.querySelectorAll('button, input, select, textarea, a')].filter(e => e.offsetParent"
        " && !(e.innerText || e.ariaLabel || e.labels?.length || e.alt)).map(e => e.outerHTML)"
    )
    assert nameless == []
    seen = set()
    for _ in range(40):
        person.key("Tab")
        seen.add(person.run("document.activeElement.id || document.activeElement.className"))
    assert {"view", "query", "go", "undo", "number", "save", "download"} - seen <= {"undo"}
    assert person.run("document.documentElement.lang") == "en"


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_it_fits_its_window_and_its_words_can_be_read(person, width, dark):
    person.visit(width=width, dark=dark)
    person.example()
    assert person.run("document.documentElement.scrollWidth <= innerWidth")
    low = person.run(
        """(() => {
          const parse = (c) => c.match(/[\\d.]+/g).map(Number);
          const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const ground = (e) => { for (; e; e = e.parentElement) {
            const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > 0) return c; } };
          return [...document.querySelectorAll('main *, header *')].filter((e) => e.offsetParent && !e.disabled
            && !e.closest('svg') && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
            .map((e) => { const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))];
              return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.className || e.tagName, e.innerText]; })
            .filter(([ratio, name]) => ratio < 4.5 && name !== 'number');
        })()"""
    )
    assert low == []
