"""The built site: links lead somewhere, no other host is asked, formulas and pictures can be read.

Build it first: `pip install -e '.[docs]' && sphinx-build -W -b html docs docs/_build/html`. What needs a
browser looks for Chromium and its driver, and for axe-core (`npm install --no-save axe-core`).
"""

import functools
import http.server
import json
import re
import shutil
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "_build" / "html"
PAGES = sorted(path.relative_to(SITE) for path in SITE.rglob("*.html") if "_static" not in path.parts)
MAIN = [page for page in PAGES if page.parts[0] != "source" and page.name != "search.html"]  # no code
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = pytest.mark.skipif(not PAGES, reason="needs the site: pip install 'minglow[docs]', then "
                                                  "sphinx-build -b html docs docs/_build/html")


class Page(HTMLParser):
    """What a page links to, shows and names."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.ids, self.images, self.headings = [], [], set(), [], []
        self.feed((SITE / path).read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        self.ids |= {has[name] for name in ("id", "name") if has.get(name)}
        if tag == "a" and has.get("href"):
            self.links.append(has["href"])
        elif tag == "link" and has.get("rel") not in ("canonical", "index", "search", "next", "prev"):
            self.loaded.append(has["href"])
        elif tag in ("script", "img", "source", "iframe") and has.get("src"):
            self.loaded.append(has["src"])
        if tag == "img":
            self.images.append(has.get("alt") or "")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))


page_of = functools.cache(Page)
each = pytest.mark.parametrize("page", PAGES, ids=str)
each_main = pytest.mark.parametrize("page", MAIN, ids=str)


@each
def test_links_lead_somewhere(page):
    for link in page_of(page).links:
        parts = urlsplit(link)
        if parts.scheme in ("https", "http", "mailto"):
            continue
        target = (SITE / page).parent / unquote(parts.path) if parts.path else SITE / page
        assert target.resolve().is_file(), link
        if parts.fragment and target.suffix == ".html":
            ids = page_of(target.resolve().relative_to(SITE)).ids
            assert unquote(parts.fragment) in ids | {"", "top"}, link


@each
def test_nothing_is_loaded_from_elsewhere(page):
    for link in page_of(page).loaded:
        parts = urlsplit(link)
        if parts.scheme != "data":
            assert not parts.netloc, link
            assert ((SITE / page).parent / unquote(parts.path)).resolve().is_file(), link


@each_main
def test_pictures_are_described_and_headings_in_order(page):
    shown = page_of(page)
    assert all(words and not re.search(r"\.(png|svg)$", words) for words in shown.images)
    assert shown.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(shown.headings, shown.headings[1:]))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    reason = "needs selenium: pip install 'minglow[docs]'"
    webdriver = pytest.importorskip("selenium.webdriver", reason=reason)
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("needs Chromium and its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run",
                 "disable-sync", "disable-background-networking", "disable-component-update",
                 "disable-dev-shm-usage", f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


@pytest.fixture(scope="module")
def address():
    """The site, served from this machine."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    handler = functools.partial(Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def show(browser, url, width, dark=False):
    """Open a page at this width, in light or dark colors."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
        "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.get(url)


@each_main
def test_a_browser_shows_it_without_a_complaint(page, browser, address):
    browser.get_log("performance")
    for width, dark in (1280, False), (390, True):
        show(browser, address + str(page), width, dark)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} pixels wide at {width}"
    said = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert said == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message["params"] for message in asked if message["method"] == "Network.requestWillBeSent"
            and message["params"]["documentURL"].startswith(address)]  # not the browser's first page's
    urls, ours = [one["request"]["url"] for one in sent], {one["requestId"] for one in sent}
    assert urls and all(url.startswith((address, "data:")) for url in urls), urls
    failed = [message["params"] for message in asked if message["method"] == "Network.loadingFailed"
              and message["params"]["requestId"] in ours and not message["params"].get("canceled")]
    assert failed == []
    assert browser.find_elements("css selector", ".katex-error, .system-message") == []
    words = browser.execute_script(
        "document.querySelectorAll('.katex, pre, code, script, style').forEach(part => part.remove());"
        "return document.body.innerText")
    assert re.findall(r"\\tag\{|\$\$|\\frac|\\begin\{", words) == [], "a formula was left as it is"


READ = ["index.html", "contract.html", "notation.html", "comparison.html", "derivations/invconv.html",
        "guides/add-a-layer.html", "notebooks/index.html", "notebooks/05_invertible_1x1.html",
        "reference/index.html", "reference/command-line.html",
        "explore/matrix.html", "explore/flow.html"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("page", READ)
def test_axe_finds_no_serious_fault(page, dark, browser, address):
    if not AXE.exists():
        pytest.skip("needs axe-core: npm install --no-save axe-core")
    show(browser, address + page, 1280, dark)
    browser.execute_script(AXE.read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run(document).then(arguments[0])")["violations"]
    serious = {fault["id"]: [node["html"][:200] for node in fault["nodes"]] for fault in found
               if fault["impact"] in ("serious", "critical")}
    assert serious == {}
