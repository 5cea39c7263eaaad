"""The page at the root of HTTP: its files, their headers, its figures, its switch."""

import re
import threading

import pytest
from attendant_server.engine.calls import SearchOptions, TranslateCall
from attendant_server.http.page.assets import assets
from attendant_server.security.api_keys import new_api_key
from attendant_server.settings import SettingsError

from tests.support.http import HttpClient
from tests.support.serving import A_SOURCE, TRANSLATION_MODEL, running_server

FILES = {asset.path: asset for asset in assets()}
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
SCRIPT_WITH_TEXT = re.compile(r"<script(?![^>]*\bsrc=)", re.IGNORECASE)


@pytest.mark.parametrize("path", FILES)
def test_each_file_has_its_type_and_is_sent_again_only_when_it_has_changed(http, path):
    answer = http.get(path)
    assert (answer.status, answer.content) == (200, FILES[path].content)
    expected = TYPES.get(path.rpartition(".")[2], "text/html")
    assert answer.headers["content-type"].partition(";")[0] == expected
    assert answer.headers["cache-control"] == "no-cache"
    etag = answer.headers["etag"]
    for given in (etag, f'"other", W/{etag}'):
        unchanged = http.get(path, if_none_match=given)
        assert (unchanged.status, unchanged.content) == (304, b"")
        assert "content-length" not in unchanged.headers
        assert unchanged.headers["etag"] == etag
    assert http.get(path, if_none_match='"other"').status == 200
    head = http.ask("HEAD", path, None, {})
    assert (head.status, head.content) == (200, b"")


def test_the_browser_is_told_to_run_nothing_but_the_files(http):
    headers = http.get("/").headers
    policy = dict(
        each.strip().partition(" ")[::2] for each in headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"


def test_the_files_name_no_other_host_and_have_no_scripts_in_the_document():
    for path, asset in FILES.items():
        text = asset.content.decode()
        urls = re.findall(r"https?://[^\s\"'`)]+", text)
        assert [url for url in urls if url != "http://www.w3.org/2000/svg"] == [], path
        assert not SCRIPT_WITH_TEXT.search(text), path
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text
        )
    document = FILES["/"].content.decode()
    assert not re.search(r"\son\w+=|\sstyle=", document)
    named = set(re.findall(r'(?:src|href)="(page/[^"]+)"', document))
    assert named <= {path.removeprefix("/") for path in FILES}


@pytest.mark.parametrize(
    "path",
    [
        *("/page", "/page/", "/page/index.html", "/index.html", "/page/__init__.py"),
        *("/page/../settings.py", "/page/..%2fassets.py", "/page/%2e%2e/assets.py", "//etc/passwd"),
        *("/page//etc/passwd", "/page/app.js/", "/page/app.js%00.css", "/page/APP.JS"),
    ],
)  # fmt: skip
def test_no_other_file_can_be_reached(http, path):
    answer = http.get(path)
    assert (answer.status, answer.json) == (404, {"error": "there is no such path"})


def test_files_cannot_be_written(http):
    assert http.post("/", {}).status == 405


def test_the_figures_count_texts_and_calls(http):
    def figure() -> dict:
        found = http.get("/page/statistics").json
        return next(each for each in found["models"] if each["model"] == "tiny-bert/1")

    before = figure()
    body = {"model": "tiny-bert", "texts": ["the old king", "the cat", ""]}
    assert http.post("/attendant.v1.EmbeddingService/Embed", body).status == 200
    after = figure()
    assert after["is_ready"] is True
    assert after["num_texts"] == before["num_texts"] + 2
    assert after["calls"]["count"] == before["calls"]["count"] + 1
    assert after["calls"]["seconds"] > before["calls"]["seconds"]
    assert (after["num_queued_texts"], after["num_active_texts"]) == (0, 0)


def test_the_figures_show_what_waits_and_what_runs(running, http):
    def load() -> tuple[int, int]:
        found = http.get("/page/statistics").json["models"]
        figure = next(each for each in found if each["model"] == "tiny-en-de/1")
        return figure["num_queued_texts"], figure["num_active_texts"]

    held, release = threading.Event(), threading.Event()

    def hold(_: tuple[int, ...]) -> None:
        held.set()
        release.wait(60)

    options = SearchOptions(max_output_tokens=8, min_output_tokens=8)
    call = TranslateCall([A_SOURCE], options, on_prefix=hold)
    running.server.engine.submit(TRANSLATION_MODEL, call)
    assert held.wait(60)
    waiting = running.submit(lambda _: None)
    running.wait_for_queued(1)
    assert load() == (1, 1)
    release.set()
    for each in (call, waiting):
        each.future.result(60)
    assert load() == (0, 0)


def test_with_keys_the_files_need_none_and_the_figures_need_the_permission_to_list(
    loop, settings, tmp_path
):
    lines = {"any": "", "embedder": 'methods = ["Embed"]\n', "one": 'models = ["tiny-bert"]\n'}
    keys = {name: new_api_key(name) for name in lines}
    path = tmp_path / "keys.toml"
    path.write_text("\n".join(keys[name][1] + more for name, more in lines.items()))
    path.chmod(0o600)
    with running_server(
        loop, settings(api_keys=str(path), models=("tiny-bert", "tiny-lm"))
    ) as running:
        port = running.server.http_port
        with HttpClient(port) as stranger:
            assert {stranger.get(file).status for file in FILES} == {200}
            assert stranger.get("/page/statistics").status == 401
        for name, status in (("any", 200), ("embedder", 403), ("one", 200)):
            with HttpClient(port, key=keys[name][0]) as client:
                answer = client.get("/page/statistics")
            assert answer.status == status
            if name == "one":
                assert [each["model"] for each in answer.json["models"]] == ["tiny-bert/1"]


def test_the_page_can_be_switched_off(start):
    running = start(http_protocols=("openai", "connect"), models=("tiny-bert",))
    with HttpClient(running.server.http_port) as client:
        assert {client.get(path).status for path in (*FILES, "/page/statistics")} == {404}
        assert client.get("/v1/models").status == 200


def test_the_page_needs_connect(settings):
    with pytest.raises(SettingsError, match="page needs connect"):
        settings(http_protocols=("openai", "page"))
