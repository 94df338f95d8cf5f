"""The page that `mooncake sim --html` writes, in a headless browser: at both widths, in both colour schemes.

Pictures are kept in build/page/, to be looked at.
"""
import pytest

from conftest import ROOT, mooncake

try:
    from browser import Browser, chromium
except ImportError: # websockets
    pytest.skip("websockets is not installed: make deps", allow_module_level=True)
if not chromium():
    pytest.skip("no chromium: make deps installs it", allow_module_level=True)

VIEWS = {"desktop-light": (1440, 900, False, False), "desktop-dark": (1440, 900, True, False),
         "phone-light": (390, 844, False, True), "phone-dark": (390, 844, True, True)}
# Of each picture: its width, and the height of its smallest letters, as they are seen.
SEEN = """[...document.querySelectorAll('svg')].map(svg => {
    const size = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width * 12;
    return [svg.getBoundingClientRect().width, size];
})"""


@pytest.fixture(name="report", scope="module")
def write_report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    trace, page = folder / "made.jsonl", folder / "report.html"
    made = mooncake("trace", "generate", "-n", "600", "--rate", "3", "--input-tokens", "6000", "-o", str(trace))
    assert made.returncode == 0, made.stderr
    run = mooncake("sim", "-t", str(trace), "-c", "2P+2D", "-p", "algorithm1,random", "-s", "1,2", "--html", str(page))
    assert run.returncode == 0, run.stderr
    return page


@pytest.fixture(name="browser", scope="module")
def run_browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.mark.parametrize("name", VIEWS)
def test_it_can_be_read(report, browser, name):
    width, height, dark, phone = VIEWS[name]
    view = browser.page(report.as_uri(), width, height, dark=dark, phone=phone)
    view.screenshot(ROOT / "build" / "page" / f"sim-{name}.png", whole=True)
    assert not view.errors, view.errors
    assert view.value("document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    pictures = view.value(SEEN)
    assert len(pictures) == 3 + 4 * 4
    for seen, letters in pictures:
        assert width / 4 < seen <= width and letters >= 7.5
    titles = view.value("[...document.querySelectorAll('svg > title')].map(t => t.textContent)")
    for title in ("Time to first token", "Load", "Replicas of blocks, ranked by use", "Regret: TTFT above a lone request's"):
        assert title in titles
    paper = view.value("getComputedStyle(document.querySelector('.paper')).fill")
    assert (paper == "rgb(255, 255, 255)") != dark
