"""docs/explore: the pages compute and show what minglow computes, and work by keyboard and touch.

Those tests that need a browser drive one without a screen, and are skipped where there is none.
"""

import base64
import importlib.util
import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import minglow
from minglow import inference
from minglow.data import digits

try:
    from selenium import webdriver
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
    from selenium.webdriver.common.actions.pointer_input import PointerInput
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait
except ImportError:
    webdriver = None

DOCS = Path(__file__).parents[2] / "docs"
PAGES = DOCS / "explore" / "explore"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync")
SECONDS = 30  # that a condition may take to come true
WIDE, NARROW = (1280, 900), (390, 844)

spec = importlib.util.spec_from_file_location("export", DOCS / "explore" / "export.py")
export = importlib.util.module_from_spec(spec)
spec.loader.exec_module(export)


def exported():
    """What data.js hands to the pages."""
    text = (PAGES / "data.js").read_text(encoding="utf-8")
    return json.loads(text[text.index("{"):text.rindex("}") + 1])


def decoded(text):
    return np.frombuffer(base64.b64decode(text), "<f4")


DATA = exported()


def plane_flow(name, dtype=np.float32):
    flow = export.plane_flow(dtype)
    flow.flat.value[...] = decoded(DATA[name]["weights"])
    return flow


def digits_flow(dtype="float32"):
    flow = minglow.load(export.DIGITS)
    again = replace(flow.config, dtype=dtype).build()
    again.flat.value[...] = flow.flat.value
    return again


# The browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if webdriver is None:
        pytest.skip("needs selenium: pip install 'minglow[docs]'")
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs Chromium and its chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


class Page:
    """A page that is open in the browser."""

    def __init__(self, browser, name, size=WIDE, scheme="light"):
        self.browser = browser
        self.devtools("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1],
                      deviceScaleFactor=1, mobile=size == NARROW)
        self.devtools("Emulation.setEmulatedMedia",
                      features=[{"name": "prefers-color-scheme", "value": scheme}])
        browser.get((PAGES / name).as_uri())
        self.wait(lambda: self.run("return document.readyState === 'complete' && !!window.minglow"))

    def devtools(self, command, **arguments):
        return self.browser.execute_cdp_cmd(command, arguments)

    def run(self, script, *arguments):
        return self.browser.execute_script(script, *arguments)

    def call(self, function, *arguments):
        """A function of window.minglow, called; infinities come back as floats."""
        text = self.run(
            "return JSON.stringify(window.minglow." + function + "(...arguments) ?? null,"
            "(name, value) => typeof value === 'number' && !isFinite(value) ? String(value) : value)",
            *arguments)
        return json.loads(text)

    def wait(self, condition):
        return WebDriverWait(self.browser, SECONDS, 0.02).until(lambda _: condition())

    def find(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def text(self, name):
        return self.find(f"#{name}").text

    def number(self, name):
        """The number that an output shows."""
        return number(self.text(name))

    def actions(self):
        return webdriver.ActionChains(self.browser)

    def slide(self, name, value):
        """Move a slider to a value, by keys."""
        slider = self.find(f"#{name}")
        key = {"max": Keys.END, "min": Keys.HOME}.get(value)
        slider.send_keys(key or Keys.NULL)
        while key is None and float(slider.get_attribute("value")) != value:
            right = float(slider.get_attribute("value")) < value
            slider.send_keys(Keys.ARROW_RIGHT if right else Keys.ARROW_LEFT)


def number(text):
    return float(text.replace("\u2212", "-").replace("∞", "inf").split()[0])


@pytest.fixture
def page(browser):
    """Open a page; in the end nothing has complained, and no network has been asked for anything."""
    yield lambda *arguments: Page(browser, *arguments)
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {message["params"]["request"]["url"] for message in messages
             if message["method"] == "Network.requestWillBeSent"
             and message["params"]["documentURL"].startswith(PAGES.as_uri())}
    assert f"{PAGES.as_uri()}/explore.js" in asked
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []


# The matrix

MATRICES = [
    [[1, 0], [0, 1]], [[1.2, -0.4], [0.3, 0.9]], [[0, 1], [1, 0]], [[0.6, -0.8], [0.8, 0.6]],
    [[1, 0.75], [0, 1]], [[-2.5, 1.1], [0.35, 2.05]], [[0.001, 0], [0, -0.002]], [[1, 1], [1, 1.000001]],
    [[1.5, 0.7], [1.45, 0.7]],
]
SINGULAR = [[[0, 0], [0, 0]], [[1, 0.5], [0.5, 0.25]], [[0.1, 0.3], [0.2, 0.6]], [[0, 2], [0, 1]],
            [[1 / 3, 0.7], [0.1, 0.21]]]


def conv(W):
    layer = minglow.InvConv1x1(2, dtype=np.float64)
    layer.params["weight"][...] = W
    return layer


@pytest.mark.parametrize("W", MATRICES)
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (5, 16)])
def test_the_matrix_page_says_what_numpy_and_minglow_say(page, W, size):
    page = page("matrix.html")
    page.call("matrix.resize", *size)
    page.call("matrix.set", W)
    values = page.call("matrix.values")
    layer, x = conv(W), np.random.default_rng(0).standard_normal((1, *size, 2))
    y, log_det, _ = layer.forward(x)
    expected = {"det": np.linalg.det(W), "area": abs(np.linalg.det(W)), "logDet": log_det[0],
                "orientation": np.sign(np.linalg.det(W)), "logAbsDet": np.linalg.slogdet(W)[1],
                "inverse": np.linalg.inv(W), "condition": np.linalg.cond(W)}
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(y @ np.transpose(values["inverse"]), x, atol=1e-8)
    for name, key, half in ("det", "det", 5e-5), ("log", "logAbsDet", 5e-5), ("layer", "logDet", 5e-4):
        assert page.number(name) == pytest.approx(expected[key], abs=1.01 * half)
    assert page.number("condition") == pytest.approx(expected["condition"], rel=1e-3)
    assert ("reversed" in page.text("orientation")) == (expected["det"] < 0)
    assert "an inverse" in page.text("status")


@pytest.mark.parametrize("W", SINGULAR)
def test_a_singular_matrix_has_no_inverse_there_as_in_minglow(page, W):
    page = page("matrix.html")
    page.call("matrix.set", W)
    values = page.call("matrix.values")
    with pytest.raises(minglow.SingularWeightError):
        conv(W).inverse(np.ones((1, 8, 8, 2)))
    assert values["inverse"] is None and values["det"] == values["orientation"] == 0
    assert float(values["logAbsDet"]) == float(values["logDet"]) == -np.inf
    assert float(values["condition"]) == np.inf
    assert page.text("status").startswith("No inverse.")
    assert page.number("log") == page.number("layer") == -np.inf and page.number("det") == 0
    assert page.text("inverse") == "none" and page.text("orientation") == "lost"
    corners = np.array([corner.split(",") for corner in page.find("#plane polygon[fill='var(--area)']")
                        .get_attribute("points").split()], float)
    sides = corners[[1, 3]] - corners[0]
    assert abs(np.linalg.det(sides)) < 1e-9  # the square that is drawn has no area


def test_the_square_that_is_drawn_is_the_image_of_the_unit_square(page):
    page = page("matrix.html")
    W = [[1.5, -0.5], [0.25, 0.75]]
    page.call("matrix.set", W)
    points = page.find("#plane polygon[fill='var(--area)']").get_attribute("points").split()
    corners = np.array([point.split(",") for point in points], float) * (1, -1)  # an SVG's y points down
    np.testing.assert_allclose(corners, np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) @ np.transpose(W))


def test_the_presets_are_what_they_are_called(page):
    page = page("matrix.html")
    found = {}
    for button in page.all("#presets button"):
        button.click()
        values = page.call("matrix.values")
        found[button.text] = np.array(values["W"]), values["det"]
    assert set(found) == {"Identity", "Rotation", "Shear", "Permutation", "Singular"}
    np.testing.assert_array_equal(found["Identity"][0], np.eye(2))
    Q, det = found["Rotation"]
    np.testing.assert_allclose(Q @ Q.T, np.eye(2), atol=1e-12)
    assert det == pytest.approx(1) and not np.allclose(Q, np.eye(2))
    assert found["Shear"][0].tolist() == [[1, 0.75], [0, 1]] and found["Shear"][1] == 1
    assert found["Permutation"][0].tolist() == [[0, 1], [1, 0]] and found["Permutation"][1] == -1
    assert found["Singular"][1] == 0


def test_the_singular_preset_and_one_key_give_what_the_text_promises(page):
    page = page("matrix.html")
    page.find("button[data-preset=singular]").click()
    page.all("#plane .handle")[1].send_keys(Keys.ARROW_UP)
    assert page.number("log") == pytest.approx(-3, abs=0.01)
    assert page.number("condition") == pytest.approx(32, abs=0.5)


def test_arrow_keys_move_the_handle_that_tab_reaches(page):
    page = page("matrix.html")
    page.call("matrix.set", [[1, 0], [0, 1]])
    while page.run("return document.activeElement.getAttribute('role')") != "slider":
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
    first = page.browser.switch_to.active_element
    assert "first column" in first.accessible_name
    ring = "return getComputedStyle(document.activeElement.querySelector('.ring')).stroke"
    assert page.run(ring) not in ("none", "rgba(0, 0, 0, 0)")  # the focus is seen
    first.send_keys(Keys.ARROW_UP)
    first.send_keys(Keys.ARROW_RIGHT)
    assert page.call("matrix.values")["W"] == [[1.05, 0], [0.05, 1]]
    first.send_keys(Keys.TAB)
    second = page.browser.switch_to.active_element
    page.actions().key_down(Keys.SHIFT).send_keys(Keys.ARROW_LEFT).key_up(Keys.SHIFT).perform()
    second.send_keys(Keys.ARROW_DOWN)
    assert page.call("matrix.values")["W"] == [[1.05, -0.25], [0.05, 0.95]]
    assert "0.25 to the right" in second.get_attribute("aria-valuetext")
    for _ in range(60):
        second.send_keys(Keys.ARROW_UP)
    assert page.call("matrix.values")["W"][1][1] == 2.5  # it stays in the picture


def pixels_of_a_unit(page):
    return page.run("return document.getElementById('plane').getScreenCTM().a")


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_a_mouse_drags_a_handle(page, size):
    page = page("matrix.html", size)
    page.call("matrix.set", [[1, 0], [0, 1]])
    unit, tips = pixels_of_a_unit(page), page.all("#plane .handle .tip")
    page.actions().move_to_element(tips[0]).click_and_hold().move_by_offset(
        round(0.5 * unit), round(-1.0 * unit)).release().perform()
    np.testing.assert_allclose(page.call("matrix.values")["W"], [[1.5, 0], [1.0, 1]], atol=0.051)
    W = page.call("matrix.values")["W"]
    page.actions().move_by_offset(20, 20).perform()
    assert page.call("matrix.values")["W"] == W  # it has been let go
    assert page.number("det") == pytest.approx(np.linalg.det(W), abs=1e-4)


def test_a_finger_drags_a_handle(page):
    page = page("matrix.html", NARROW)
    page.call("matrix.set", [[1, 0], [0, 1]])
    unit, tip = pixels_of_a_unit(page), page.all("#plane .handle .tip")[1]
    builder = ActionBuilder(page.browser, mouse=PointerInput(POINTER_TOUCH, "finger"))
    finger = builder.pointer_action
    finger.move_to(tip).pointer_down()
    for _ in range(4):
        finger.move_by(round(-0.25 * unit), round(0.125 * unit))
    finger.pointer_up()
    builder.perform()
    np.testing.assert_allclose(page.call("matrix.values")["W"], [[1, -1], [0, 0.5]], atol=0.051)


def test_numbers_that_are_typed_are_taken_or_put_back(page):
    page = page("matrix.html")
    page.call("matrix.set", [[1, 0], [0, 1]])
    field = page.find("#w12")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("-0.375", Keys.TAB)
    assert page.call("matrix.values")["W"] == [[1, -0.375], [0, 1]]
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("77", Keys.TAB)
    assert page.call("matrix.values")["W"] == [[1, -0.375], [0, 1]]
    assert field.get_attribute("value") == "-0.375"
    height = page.find("#h")
    page.call("matrix.set", [[2, 0], [0, 1]])
    for typed, taken in ("3", 3), ("0", 3), ("2.5", 2), ("", 2):
        height.send_keys(Keys.CONTROL, "a")
        height.send_keys(typed or Keys.DELETE, Keys.TAB)
        assert height.get_attribute("value") == str(taken)
        assert page.number("layer") == pytest.approx(taken * 8 * np.log(2), abs=6e-4)


# The flow of the plane


@pytest.mark.parametrize("name", list(export.TOYS))
def test_the_flow_of_the_plane_is_minglows(page, name):
    page = page("flow.html")
    z = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    found = {"fromLatents": page.call("plane.fromLatents", name, z.tolist())}
    x = np.array(found["fromLatents"])
    found["latents"] = page.call("plane.latents", name, x.tolist())
    found["logProb"] = page.call("plane.logProb", name, x.tolist())
    for dtype, error in (np.float32, 1e-4), (np.float64, 1e-9):
        flow = plane_flow(name, dtype)
        np.testing.assert_allclose(found["fromLatents"], flow.from_latents(z), atol=error)
        np.testing.assert_allclose(found["latents"], flow.latents(x), atol=10 * error)
        np.testing.assert_allclose(found["logProb"], flow.log_prob(x), atol=10 * error)


def stages(flow, z):
    """z after each layer that is undone, and the log-determinants of these layers, data to latents."""
    x, found, log_dets = np.array([z]), [np.array(z)], []
    for layer in flow.bijection.layers[-2::-1]:
        x = layer.inverse_only(x)
        found.append(x[0])
        log_dets.append(layer.forward_only(x)[1][0])
    return found, log_dets


@pytest.mark.parametrize("name", list(export.TOYS))
def test_the_probe_is_where_each_layers_inverse_takes_it(page, name):
    page, z = page("flow.html"), [1.1, -0.4]
    flow = plane_flow(name, np.float64)
    where, log_dets = stages(flow, z)
    assert len(where) == 25
    for undone in 0, 1, 2, 3, 7, 16, 24:
        page.call("plane.set", name, undone, z)
        values = page.call("plane.values")
        normal = -0.5 * np.dot(z, z) - np.log(2 * np.pi)
        np.testing.assert_allclose(values["at"], where[undone], atol=1e-9)
        assert values["normal"] == pytest.approx(normal)
        assert values["sum"] == pytest.approx(sum(log_dets[:undone]), abs=1e-9)
        assert values["density"] == pytest.approx(normal + sum(log_dets[:undone]), abs=1e-9)
        assert page.number("probe-density") == pytest.approx(values["density"], abs=6e-4)
        assert page.number("probe-sum") == pytest.approx(values["sum"], abs=6e-4)
        if undone:
            assert page.number("probe-layer") == pytest.approx(log_dets[undone - 1], abs=6e-4)
        shown = [number(part) for part in page.text("probe-at").strip("()").split(",")]
        np.testing.assert_allclose(shown, where[undone], atol=6e-4)
        kind = {"ActNorm": "actnorm", "InvConv1x1": "1\u00d71 convolution", "AffineCoupling": "coupling"}
        layer = "No layer" if undone == 0 else kind[type(flow.bijection.layers[24 - undone]).__name__]
        assert layer in page.text("stage")
    assert values["density"] == pytest.approx(flow.log_prob(where[-1][None])[0], abs=1e-9)


def test_the_layers_slider_and_the_probe_work_by_keys(page):
    page = page("flow.html")
    assert page.text("undone-shown") == "24/24"
    page.find("#undone").send_keys(Keys.ARROW_LEFT)
    assert page.text("undone-shown") == "23/24"
    page.find("#undone").send_keys(Keys.HOME)
    assert page.text("undone-shown") == "0/24" and page.text("probe-layer") == "no layer yet"
    before = page.call("plane.values")["z"]
    page.find("#latent-probe .handle").send_keys(Keys.ARROW_RIGHT)
    after = page.call("plane.values")["z"]
    np.testing.assert_allclose(np.subtract(after, before), [0.05, 0], atol=1e-9)
    assert float(page.find("#z1").get_attribute("value")) == after[0]
    field = page.find("#z2")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("1.25", Keys.TAB)
    assert page.call("plane.values")["z"] == [after[0], 1.25]


def test_playing_undoes_layers_and_can_be_stopped(page):
    page = page("flow.html")
    page.find("#play").click()
    page.wait(lambda: int(page.text("undone-shown").split("/")[0]) in range(1, 24))
    assert page.text("play") == "Stop"
    page.find("#play").click()
    assert page.text("play") == "Play from the latents"
    reached = page.text("undone-shown")
    page.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.text("undone-shown") == reached


def picture(page, name):
    """A canvas as an array (h, w, 3), once all that waits for the next frame is drawn."""
    page.run("return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    # A copy is read: the page's own canvas is made to be drawn on.
    height, width, data = page.run(
        "const {width, height} = document.getElementById(arguments[0]);"
        "const copy = new OffscreenCanvas(width, height).getContext('2d');"
        "copy.drawImage(document.getElementById(arguments[0]), 0, 0);"
        "return [height, width, Array.from(copy.getImageData(0, 0, width, height).data)]", name)
    return np.array(data).reshape(height, width, 4)[..., :3]


def test_temperature_data_set_and_training_data_change_the_picture(page):
    page = page("flow.html")
    pictures = [picture(page, "moved-points")]
    for act in (lambda: page.slide("plane-temperature", "min"),
                lambda: page.slide("plane-temperature", 0.05),
                lambda: page.find("#truth").click(),
                lambda: page.find("#grid").click(),
                lambda: Select(page.find("#plane-name")).select_by_value("pinwheel"),
                lambda: page.find("#plane-noise").click()):
        act()
        pictures.append(picture(page, "moved-points"))
        assert pictures[-1].shape == pictures[-2].shape and (pictures[-1] != pictures[-2]).any()


# The digits


def latents(n, seed=0, temperature=1.0):
    z = np.random.default_rng(seed).standard_normal((n, 64)).astype(np.float32)
    return np.float32(temperature) * z


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_digits_decoder_is_minglows(page, temperature):
    page, z = page("flow.html"), latents(16, temperature=temperature)
    x = np.array(page.call("digits.sample", z.ravel().tolist())).reshape(16, 8, 8, 1)
    for dtype, error in ("float32", 1e-4), ("float64", 1e-9):
        np.testing.assert_allclose(x, digits_flow(dtype).from_latents(z), atol=error)
    assert page.call("digits.quantize", x.ravel().tolist()) == minglow.quantize(x, 17).ravel().tolist()


def test_the_digits_latents_and_densities_are_minglows(page):
    page = page("flow.html")
    x = minglow.dequantize(digits().held_out[:8], 17, 0)
    z = np.reshape(page.call("digits.latents", x.ravel().tolist()), (8, 64))
    log_prob = page.call("digits.logProb", x.ravel().tolist())
    for dtype, error in ("float32", 1e-3), ("float64", 1e-9):
        flow = digits_flow(dtype)
        np.testing.assert_allclose(z, flow.latents(x), atol=error)
        np.testing.assert_allclose(log_prob, flow.log_prob(x), atol=error, rtol=1e-6)


def middles(page, index):
    """One of the page's digits as real numbers: the middle of each gray level's cell."""
    x = np.array(page.call("digits.real", index)).reshape(1, 8, 8, 1)
    image = np.reshape(DATA["digits"]["images"][index], x.shape)
    np.testing.assert_allclose(x, (image + 0.5) / 17 - 0.5)
    return x


def test_interpolation_is_minglows(page):
    page = page("flow.html")
    shares = np.linspace(0, 1, 5)
    x = np.array(page.call("digits.interpolate", 6, 16, shares.tolist())).reshape(1, 5, 8, 8, 1)
    start, end = middles(page, 6), middles(page, 16)
    expected = inference.interpolate(digits_flow(), start, end, 5)
    np.testing.assert_allclose(x, expected, atol=1e-4)
    np.testing.assert_allclose(x[0, [0, -1]], [start[0], end[0]], atol=1e-6)


@pytest.mark.parametrize("shares", [(0, 0), (1, 0), (0, 1), (1, 1), (0.3, 0.8)])
def test_resampling_is_minglows_level_by_level(page, shares):
    page, noise, temperature = page("flow.html"), latents(3, seed=1), 0.6
    found = page.call("digits.resample", 4, shares, temperature, noise.ravel().tolist())
    flow, image = digits_flow(), np.repeat(middles(page, 4), 3, axis=0)
    z = flow.latents(image).copy()
    mine, fresh = inference.latent_views(flow, z), inference.latent_views(flow, noise)
    for level, share in zip(mine, shares):
        mine[level][...] = np.sqrt(1 - share**2) * mine[level] + share * temperature * fresh[level]
    np.testing.assert_allclose(np.reshape(found, image.shape), flow.from_latents(z), atol=1e-4)


def tiles(page, name, columns):
    """The digits in a canvas, (N, 8, 8), as shares of ink."""
    image = picture(page, name)[..., 0].astype(float)
    paper, ink = 255, 0x14
    lines = (len(image) + 1) // 9
    found = [image[9 * i:9 * i + 8, 9 * j:9 * j + 8] for i in range(lines) for j in range(columns)]
    return (paper - np.array(found)) / (paper - ink)


def test_the_pictures_of_digits_are_of_what_the_sliders_say(page):
    page, flow = page("flow.html"), digits_flow()
    page.slide("temperature", "min")
    page.wait(lambda: page.text("temperature-shown") == "0.00")
    at_zero = flow.from_latents(np.zeros((1, 64), np.float32))
    assert page.number("samples-density") == pytest.approx(flow.log_prob(at_zero)[0], abs=0.06)
    drawn = tiles(page, "samples", 8)
    expected = minglow.quantize(at_zero, 17)[..., 0] / 16
    np.testing.assert_allclose(drawn, np.repeat(expected, 24, axis=0), atol=0.003)
    page.slide("temperature", 0.1)
    page.wait(lambda: page.text("temperature-shown") == "0.10")
    assert (tiles(page, "samples", 8) != drawn).any()

    Select(page.find("#from")).select_by_value("0")
    Select(page.find("#to")).select_by_value("13")
    page.slide("share", "max")
    page.wait(lambda: page.text("share-shown") == "100 %")
    images = np.reshape(DATA["digits"]["images"], (20, 8, 8)) / 16
    for name, index in ("start", 0), ("between", 13), ("end", 13):
        np.testing.assert_allclose(tiles(page, name, 1)[0], images[index], atol=0.003)
    for name in "latent-line", "pixel-line":
        line = tiles(page, name, 9)
        np.testing.assert_allclose(line[[0, 8]], images[[0, 13]], atol=0.003)
        assert (line[4] != images[0]).any() and (line[4] != images[13]).any()

    Select(page.find("#kept")).select_by_value("5")
    page.slide("level-1", "min")
    page.wait(lambda: page.text("level-1-shown") == "0.00")
    picture(page, "redrawn")
    np.testing.assert_allclose(tiles(page, "redrawn", 9), np.repeat(images[5:6], 9, axis=0), atol=0.003)
    page.slide("level-2", "max")
    page.wait(lambda: page.text("level-2-shown") == "1.00")
    redrawn = tiles(page, "redrawn", 9)
    np.testing.assert_allclose(redrawn[0], images[5], atol=0.003)
    assert all((copy != images[5]).any() for copy in redrawn[1:])
    page.find("#level-noise").click()
    assert (tiles(page, "redrawn", 9)[1:] != redrawn[1:]).any()


# Both pages, for every reader


@pytest.mark.parametrize("name", ["matrix.html", "flow.html"])
def test_every_control_has_a_name_and_the_page_its_landmarks(page, name):
    page = page(name)
    assert page.find("html").get_attribute("lang") == "en" and page.browser.title
    assert len(page.all("main")) == len(page.all("h1")) == 1
    controls = page.all("button, input, select, output, a, [tabindex], [role=img]")
    assert len(controls) > 20
    for control in page.all("button, input, select, a, [tabindex], [role=img]"):
        assert control.accessible_name.strip(), control.get_attribute("outerHTML")
    levels = [int(heading.tag_name[1]) for heading in page.all("h1, h2, h3")]
    assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))


@pytest.mark.parametrize("name", ["matrix.html", "flow.html"])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_nothing_sticks_out_of_the_window(page, name, size):
    page = page(name, size)
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert page.run("return window.innerWidth") == size[0]
    right = page.run("return Math.max(...[...document.querySelectorAll('main *:not(svg *)')]"
                     ".map(element => element.getBoundingClientRect().right))")
    assert right <= size[0]


def luminance(color):
    """Of #rrggbb, as WCAG 2 defines it."""
    share = np.array([int(color[at:at + 2], 16) for at in (1, 3, 5)]) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def contrast(a, b):
    low, high = sorted(map(luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colors_have_contrast(page, scheme):
    page = page("flow.html", WIDE, scheme)
    dark = luminance(page.run("return explore.color('page')")) < 0.1
    assert dark == (scheme == "dark")
    for name, least in {"text": 7, "quiet": 4.5, "link": 4.5, "alarm": 4.5, "first": 4.5, "second": 4.5,
                        "third": 4.5, "fourth": 4.5, "line": 3, "focus": 3}.items():
        for ground in "page", "panel":
            colors = page.run("return arguments[0].map(explore.color)", [name, ground])
            assert contrast(*colors) >= least, f"{name} on {ground}: {contrast(*colors):.2f}"


def test_a_page_that_is_open_follows_the_system_into_the_dark(page):
    page = page("flow.html")
    light = {name: picture(page, name) for name in ("moved-points", "samples", "latent-line", "redrawn")}
    page.devtools("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark"}])
    for name, before in light.items():
        page.wait(lambda name=name, before=before: (picture(page, name) != before).any())


# The files, without a browser


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.html")), ids=lambda path: path.name)
def test_links_lead_to_pages_of_the_site_and_scripts_lie_beside(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r'(?:href|src)="([^"#]+)', text)
    assert "../index.html" in links and any(link.startswith("../notebooks/") for link in links)
    for link in links:
        if link == "data:,":
            continue
        assert "//" not in link
        if not link.startswith("../"):
            assert (PAGES / link).is_file()
        elif link.startswith("../notebooks/"):
            assert (DOCS.parent / link[3:]).with_suffix(".py").is_file()
        else:
            assert (DOCS / link[3:]).with_suffix(".md").is_file()


def test_data_js_is_what_export_writes():
    """The digits exactly; the flows of the plane as far as another machine's rounding lets them be."""
    assert (PAGES / "data.js").stat().st_size < 600_000
    assert (PAGES / "data.js").read_text(encoding="utf-8") == export.script(DATA)
    assert json.loads(json.dumps(export.exported_digits())) == DATA["digits"]
    for name, draw in export.TOYS.items():
        again = json.loads(json.dumps(export.exported_plane(name, export.plane_flow())))
        assert again["tree"] == DATA[name]["tree"]
        np.testing.assert_allclose(decoded(again["points"]), decoded(DATA[name]["points"]), atol=1e-6)
        learned = plane_flow(name).log_prob(draw(4000, rng=3)).mean()
        start = export.plane_flow()
        start.initialize(draw(4000, rng=4))
        assert learned > start.log_prob(draw(4000, rng=3)).mean() + 0.5


def test_the_same_training_gives_the_same_weights():
    first, second = (export.exported(export.trained(export.two_moons, steps=20)) for _ in range(2))
    assert first == second


def test_a_layer_that_the_pages_do_not_know_is_not_exported():
    for flow in minglow.official_glow((4, 4, 1), 1, 1, 2), minglow.glow((2,), classes=2, flow_steps=1):
        with pytest.raises(ValueError, match=r"factor|expected a flow on"):
            export.exported(flow)
