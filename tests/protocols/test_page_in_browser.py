"""The page in Chromium: every view with real models, by pointer and by keys, light and dark."""

import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from attendant_server.security.api_keys import new_api_key

from tests.support.browser import faults_of, opened, running_browser
from tests.support.serving import running_server, wait_until

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
BUNDLES = [
    *(ROOT / "bundles" / name for name in ("en-de", "de-en", "bert-en-de")),
    ROOT / "tests" / "recorded" / "language_models" / "tiny-lm",
    ROOT / "tests" / "recorded" / "classifiers" / "tiny-classifier",
]
VIEWS = ("translate", "attention", "embeddings", "masks", "labels", "generate", "models", "figures")
INPUTS = {
    "translate": ("#tr-text", "The dog is barking.", "#tr-result .word"),
    "attention": ("#at-text", "The dog.", "#at-result svg"),
    "embeddings": ("#em-texts", "a dog\nein Hund\na cat", "svg.map"),
    "masks": ("#ma-text", "The [MASK] is red.", "#ma-result table"),
    "labels": ("#la-texts", "the old king", "#la-result table"),
    "generate": ("#ge-prompt", "the old king", "#generate-form .status:text('By tiny-lm')"),
}
"""A field of a view, a text for it, and what then appears."""
DARK = "rgb(20, 23, 28)"
CHOICES = {"translate": ("#tr-to", "de"), "attention": ("#at-model", "en-de")}
SENTENCE = "The old dog is barking at the black cat in the garden."
WATCH = """() => {
  const result = document.getElementById("tr-result");
  const below = document.querySelector("#translate-form .actions");
  window.seen = [];
  new MutationObserver(() => {
    const text = result.getAttribute("aria-busy") ? result.textContent : "";
    if (text) seen.push([text, below.getBoundingClientRect().top]);
  }).observe(result, { childList: true, subtree: true, characterData: true });
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles")
    for bundle in BUNDLES:
        (folder / bundle.name).symlink_to(bundle)
    return folder


@pytest.fixture(scope="module")
def server(loop, settings, folder):
    with running_server(loop, settings(bundles=folder, default_models=("bert-en-de",))) as running:
        yield running


@pytest.fixture(scope="module")
def browser():
    with running_browser() as found:
        yield found


@pytest.fixture
def open_page(browser, server):
    """Opens the page at a view, in a window of its own."""
    with ExitStack() as stack:

        def open_view(view: str = "translate", **options):
            url = f"http://127.0.0.1:{server.server.http_port}/#{view}"
            return stack.enter_context(opened(browser, url, **options))

        yield open_view


def translate(page, text: str) -> None:
    page.select_option("#tr-to", "de")
    page.fill("#tr-text", text)
    page.click("#translate-form .primary")


def status(page, view: str) -> str:
    return page.locator(f"#{view}-form .status").inner_text()


def test_a_translation_grows_while_it_is_decoded_and_nothing_moves(open_page):
    page = open_page()
    page.evaluate(WATCH)
    translate(page, " ".join([SENTENCE] * 12))
    page.locator("#tr-result .word").first.wait_for()
    seen = page.evaluate("seen")
    texts = [text for text, _ in seen]
    assert len(set(texts)) > 5
    for shorter, longer in zip(texts, texts[1:], strict=False):
        assert longer.startswith(shorter)
    assert len({top for _, top in seen}) == 1
    assert page.locator("#tr-result").inner_text().startswith(texts[-1])
    assert status(page, "translate").startswith("Translated by en-de/3")


def test_a_translation_can_be_cancelled_and_the_server_stops_it(open_page, server):
    def num_cancelled() -> float:
        return server.metric("attendant_calls_total", model="en-de/3", code="CANCELLED")

    before, page = num_cancelled(), open_page()
    page.locator("details.options summary").click()
    page.fill("#tr-beam", "4")
    translate(page, "\n".join(f"{SENTENCE} It is number {i}." for i in range(200)))
    page.locator("#tr-result[aria-busy]").wait_for()
    page.click("#translate-form .cancel")
    page.get_by_text("Cancelled.").wait_for()
    assert page.locator("#translate-form .cancel").is_disabled()
    wait_until(lambda: num_cancelled() == before + 1)


def test_a_word_shows_what_it_comes_from_and_what_could_stand_there(open_page):
    page = open_page()
    translate(page, "The dog is barking.")
    word = page.locator("#tr-result .word", has_text="Hund")
    word.hover()
    assert page.locator("#tr-more .word.linked").all_inner_texts() == ["dog"]
    assert page.locator("#tr-link").inner_text().startswith("“Hund” comes from “dog” (0.")
    word.click()
    choices = page.locator("section[aria-label=Alternatives] li button")
    choices.first.wait_for()
    texts = choices.all_inner_texts()
    assert len(set(texts)) == 5
    assert all(text.startswith("Der") for text in texts)
    choices.nth(1).click()
    assert page.locator("#tr-result").inner_text() == texts[1]


def test_everything_can_be_done_by_keys(open_page):
    page = open_page()
    press = page.keyboard.press
    press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    press("Enter")
    for _ in range(4):  # both languages, the model, the text
        press("Tab")
    assert page.evaluate("document.activeElement.id") == "tr-text"
    page.keyboard.type("The dog is barking.")
    page.select_option("#tr-to", "de")
    press("Control+Enter")
    page.locator("#tr-result .word").first.wait_for()
    press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Der"
    press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == "Hund"
    assert "“Hund” comes from “dog”" in page.locator("#tr-link").inner_text()
    press("Enter")
    page.locator("section[aria-label=Alternatives] li button").first.wait_for()
    press("Tab")
    press("Enter")
    assert page.locator("section[aria-label=Alternatives]").count() == 0
    page.locator("nav a", has_text="Models").focus()
    press("Enter")
    page.locator("#view-models:not([hidden])").wait_for()
    assert page.title() == "Models – attendant"
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_fault_is_told_beside_its_field(open_page):
    page = open_page()
    page.locator("details.options summary").click()
    page.fill("#tr-beam", "99")
    page.locator("details.options summary").click()
    translate(page, "Hello.")
    beam = page.locator("#tr-beam[aria-invalid]")
    beam.wait_for()
    assert page.evaluate("document.activeElement.id") == "tr-beam"
    told = page.locator(f"#{beam.get_attribute('aria-describedby')}").inner_text()
    assert told.lower() == "must be between 1 and 8, got 99"
    assert faults_of(page) == []
    page.fill("#tr-beam", "")
    page.fill("#tr-text", " ")
    page.click("#translate-form .primary")
    assert page.locator("#tr-text[aria-invalid]").count() == 1
    assert page.locator("#tr-beam[aria-invalid]").count() == 0


def test_right_to_left_text_has_its_direction(open_page):
    page = open_page()
    page.fill("#tr-text", "שלום עולם")
    assert page.evaluate("getComputedStyle(document.getElementById('tr-text')).direction") == "rtl"


def test_texts_are_compared_in_a_matrix_and_on_a_map(open_page):
    page = open_page("embeddings")
    lines = ["The dog is barking.", "Der Hund bellt.", "Where is the station?", "<b>&amp;</b>"]
    page.fill("#em-texts", "\n".join([*lines, "x " * 300]))
    page.click("#embeddings-form .primary")
    page.locator("svg.map").wait_for()
    matrix = [row.locator("td").all_inner_texts() for row in page.locator(".matrix tbody tr").all()]
    values = [[float(cell) for cell in row] for row in matrix]
    assert [row[i] for i, row in enumerate(values)] == [1.0] * 4
    assert values[0][1] == values[1][0] > 0.8 > 0.5 > values[0][2]
    assert page.locator("svg.map circle").count() == 4
    assert page.locator(".matrix th[scope=row]").last.inner_text() == "4 <b>&amp;</b>"
    assert "Text 5:" in page.locator("#em-texts-error").inner_text()
    assert status(page, "embeddings").startswith("4 of 5 texts embedded by bert-en-de/2, 256")


def test_the_map_shows_principal_components(open_page):
    page = open_page("embeddings")
    found = page.evaluate("""async () => {
      const { principalComponents } = await import("/page/vectors.js");
      return principalComponents([[3, 1, 0], [-3, 1, 0], [0, 2, 0], [0, 0, 0]]);
    }""")
    for point, expected in zip(found["points"], [[3, 0], [-3, 0], [0, 1], [0, -1]], strict=True):
        assert [abs(point[0]), abs(point[1])] == pytest.approx(list(map(abs, expected)), abs=1e-9)
    assert found["shares"] == pytest.approx([0.9, 0.1])


def test_masks_are_filled_in(open_page):
    page = open_page("masks")
    page.fill("#ma-text", "Thank  very much.")
    page.evaluate("document.getElementById('ma-text').setSelectionRange(6, 6)")
    page.click("#ma-insert")
    page.click("#masks-form .primary")
    page.locator("#ma-result table").wait_for()
    assert page.locator("#ma-result .output").inner_text() == "Thank you very much."
    assert page.locator("#ma-result tbody tr").count() == 5
    assert page.locator("#ma-result .value").first.inner_text() > "0.9"


def test_attention_is_shown_for_each_layer_and_head(open_page):
    page = open_page("attention")
    page.locator("#at-model option", has_text="en-de").first.wait_for(state="attached")
    page.select_option("#at-model", "en-de")
    page.fill("#at-text", "The dog.")
    page.click("#attention-form .primary")
    heat = page.locator("svg.heat")
    heat.wait_for()
    assert heat.locator("rect").count() == 4 * 4
    pictures = set()
    for kind, layers in (("cross", 2), ("encoder", 6), ("decoder", 2)):
        page.select_option("#at-kind", value=kind)
        assert page.locator("#at-layer option").count() == layers
        page.select_option("#at-layer", label=str(layers))
        page.select_option("#at-head", label="8")
        assert f"layer {layers}, head 8" in heat.get_attribute("aria-label")
        pictures.add(heat.inner_html())
    assert len(pictures) == 3
    page.locator("#at-result summary").click()
    rows = page.locator("#at-result tbody tr")
    weights = [float(cell) for cell in rows.first.locator("td").all_inner_texts()]
    assert weights == [1.0, 0.0, 0.0, 0.0]  # the first token of a decoder sees itself only


def test_labels_and_continuations_are_shown(open_page):
    page = open_page("labels")
    page.fill("#la-texts", "the old king\nthe cat")
    page.click("#labels-form .primary")
    page.locator("#la-result table").nth(1).wait_for()
    scores = page.locator("#la-result table").first.locator(".value").all_inner_texts()
    assert sum(map(float, scores)) == pytest.approx(1, abs=0.01)
    page.locator("nav a", has_text="Continue").click()
    page.fill("#ge-prompt", "the old king")
    page.fill("#ge-tokens", "8")
    page.click("#generate-form .primary")
    page.get_by_text("By tiny-lm/1: 8 tokens").wait_for()
    assert page.locator("#ge-result").inner_text().startswith("the old king")


def test_models_have_cards_and_figures_move(open_page):
    page = open_page("models")
    card = page.locator("article", has=page.locator("h2", has_text="en-de/3"))
    card.locator("table").nth(1).wait_for()
    text = card.inner_text()
    assert all(part in text for part in ("sacreBLEU", "Same tokens", "792 of 792", "CC-BY-2.0"))
    page.locator("nav a", has_text="Figures").click()
    row = page.locator("#fi-result tbody tr", has=page.locator("th", has_text="bert-en-de/2"))
    before = int(row.locator("td").nth(6).inner_text())
    page.evaluate("""() => fetch("/attendant.v1.EmbeddingService/Embed", {
      method: "POST", headers: { "content-type": "application/json" },
      body: JSON.stringify({ model: "bert-en-de", texts: ["a", "b", "c"] }) })""")
    row.locator("td", has_text=re.compile(rf"^{before + 3}$")).first.wait_for()


@pytest.mark.parametrize("view", VIEWS)
def test_axe_finds_nothing_in(open_page, view):
    page = open_page(view, color_scheme="light", viewport={"width": 1000, "height": 800})
    assert faults_of(page) == []
    if view in INPUTS:
        field, text, result = INPUTS[view]
        page.fill(field, text)
        if view in CHOICES:
            page.select_option(*CHOICES[view])
        page.click(f"#{view}-form .primary")
    else:
        result = {"models": "#mo-cards table", "figures": "#fi-result table"}[view]
    page.locator(result).first.wait_for()
    for summary in page.locator(f"#view-{view} summary").all():
        summary.click()
    assert faults_of(page, "color-contrast") == []  # all that depends on the scheme
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"getComputedStyle(document.body).backgroundColor === '{DARK}'")
    assert faults_of(page) == []


def test_the_colours_can_be_chosen_and_are_remembered(open_page):
    page = open_page(color_scheme="light")
    page.click("#theme")
    page.reload()
    assert page.get_attribute("#theme", "aria-pressed") == "true"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == DARK


def test_a_narrow_window_shows_every_view_without_scrolling_sideways(open_page):
    page = open_page(viewport={"width": 320, "height": 640})
    for view in VIEWS:
        page.evaluate(f"location.hash = '{view}'")
        page.locator(f"#view-{view}:not([hidden])").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_a_key_is_asked_for_and_kept_in_the_tab_only(browser, loop, settings, tmp_path):
    key, lines = new_api_key("any")
    path = tmp_path / "keys.toml"
    path.write_text(lines)
    path.chmod(0o600)
    with (
        running_server(loop, settings(api_keys=str(path), models=("tiny-bert",))) as running,
        opened(browser, f"http://127.0.0.1:{running.server.http_port}/#embeddings") as page,
    ):
        page.locator("#key").wait_for()
        assert "API key" in page.locator("#server").inner_text()
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        page.locator("#key[aria-invalid]").wait_for()
        assert faults_of(page) == []
        page.fill("#key", key)
        page.keyboard.press("Enter")
        page.locator("#server").wait_for(state="hidden")
        assert page.locator("#em-model option").all_inner_texts() == ["tiny-bert"]
        assert page.evaluate("[sessionStorage.getItem('key'), localStorage.length]") == [key, 0]
        assert page.evaluate("document.cookie") == ""
