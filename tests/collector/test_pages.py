"""The pages in a real headless Chromium: what they show, that they stay fresh and ask nobody."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, ViewportSize, expect, sync_playwright
from support.collectors import TOKEN, CollectorProcess, Start, token_file
from support.devices import Source, wire
from support.fleets import FleetStore

from edgeml.collector.web.table import A_PAGE

SCREENSHOTS = os.environ.get("EDGEML_SCREENSHOTS", "")
"""A folder that takes pictures of the pages, where one wants to look at them."""


DESK: ViewportSize = {"width": 1360, "height": 900}


class Browser:
    """A page, and what it asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.requests: list[str] = []
        self.faults: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on(
            "console",
            lambda message: self.faults.append(message.text) if message.type == "error" else None,
        )

    def keep(self, name: str) -> None:
        """On a desk and on a phone, by day and by night, where somebody wants to look."""
        if not SCREENSHOTS:
            return
        for width in (390, DESK["width"]):
            self.page.set_viewport_size({"width": width, "height": DESK["height"]})
            for scheme in ("dark", "light"):
                self.page.emulate_media(color_scheme=scheme)
                self.page.wait_for_timeout(600)  # charts follow their card's size
                path = Path(SCREENSHOTS) / f"{name}-{width}-{scheme}.png"
                self.page.screenshot(path=path, full_page=True)


@pytest.fixture(scope="module")
def chromium(require: Callable[[str], Path]) -> Iterator[Chromium]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=require("chromium"),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Browser]:
    page = chromium.new_page(viewport=DESK)  # remembers nothing
    page.set_default_timeout(30_000)
    yield Browser(page)
    page.close()


expect.set_options(timeout=30_000)


def collector_with_an_alarm(start: Start, bundle: Path) -> tuple[CollectorProcess, Source]:
    """Two devices that were healthy; one is no more."""
    collector = start("--embedded-broker", "--bundle", str(bundle)).wait_ready()
    broken, healthy = Source(bundle, seed=1), Source(bundle, seed=2)
    with (
        wire("hall", "mast-cam", collector.host, collector.port) as one,
        wire("hall", "gate-cam", collector.host, collector.port) as two,
    ):
        two.send(healthy.status(), *healthy.windows(34))
        one.send(broken.status(), *broken.windows(28), *broken.windows(8, broken=True))
        one.wait_stored(36)
        two.wait_stored(34)
    return collector, broken


def test_the_fleet_and_a_device_with_an_alarm(start: Start, bundle: Path, browser: Browser) -> None:
    collector, source = collector_with_an_alarm(start, bundle)
    page = browser.page
    page.goto(collector.page)
    incident = page.locator(".card.alarm")
    expect(incident).to_contain_text("mast-cam (hall) changed: ")
    expect(incident).to_contain_text("its one peer did not move.")
    expect(incident).to_contain_text("luma mean")
    expect(page.locator(".card", has_text="Budget of false alarms")).to_contain_text(
        "of 1 expected"
    )
    row = page.locator("tr[data-device=gate-cam]")
    for text in ("armed", "tiny 1.0", "onnx-fp32", "1,360 served", "34 late"):
        expect(row).to_contain_text(text)
    expect(page.locator("tr[data-device=mast-cam] .badge")).to_have_text("alarm")
    browser.keep("fleet")

    page.locator("tr[data-device=mast-cam] a").click()
    expect(page).to_have_url(re.compile(r"/device/hall/mast-cam$"))
    expect(page.locator("body")).to_contain_text(re.compile(r"Accuracy, estimated\s*0\.\d{3}"))
    card = page.locator(".statistics > .card", has_text="luma mean")
    expect(card.locator(".badge")).to_have_text("alarm")
    expect(card).to_contain_text(re.compile(r"from training 0\.\d+ bits"))
    expect(card).to_contain_text(re.compile(r"from own past 0\.[1-9]\d+ bits"))
    expect(card).to_contain_text("W1")
    # Each statistic has its drift over time and its histogram, drawn.
    expect(page.locator(".statistics canvas")).to_have_count(34)
    drawn = card.locator("canvas").first.evaluate(
        "c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v > 0)"
    )
    assert drawn
    browser.keep("device")

    # It stays fresh by itself: a device is heard, and the page says so.
    with wire("hall", "mast-cam", collector.host, collector.port) as device:
        device.send(source.window())
        device.wait_stored(37)
        expect(page.locator("body")).to_contain_text("1,480 served")

    hosts = {urlsplit(url).hostname for url in browser.requests if not url.startswith("data:")}
    assert hosts == {"127.0.0.1"}
    assert browser.faults == []
    # An open page does not hold up the end.
    assert collector.stop() == 0


def test_a_site_a_device_and_a_frozen_camera_are_told_apart(
    start: Start, browser: Browser, troubled: Path, tmp_path: Path
) -> None:
    shutil.copy(troubled, tmp_path / "fleet.sqlite")
    collector = start("--embedded-broker").wait_ready()
    page = browser.page
    page.goto(collector.page)
    incidents = page.locator(".card.alarm")
    expect(incidents).to_have_count(2)
    expect(incidents.nth(0)).to_contain_text("All of site hall changed: ")
    expect(incidents.nth(0)).to_contain_text("the other site did not move.")
    expect(incidents.nth(1)).to_contain_text("Only cam-1 (yard) changed: ")
    expect(incidents.nth(1)).to_contain_text("its 3 peers did not move.")
    stuck = page.locator(".card", has_text="the same for ever")
    expect(stuck).to_contain_text("cam-4 in yard")
    expect(stuck).to_contain_text(re.compile(r"yard luma mean and \d+ more: .* windows in a row"))
    # Its devices move with the site, and raise no alarm of their own.
    of_site = page.locator("tr[data-device]", has_text="hall")
    expect(of_site.first).to_contain_text("its whole site changed")
    of_others = page.locator("tr[data-device]", has_text="yard")
    expect(of_others.filter(has_text="its whole site changed")).to_have_count(0)
    budget = page.locator(".card", has_text="Budget of false alarms")
    expect(budget).to_contain_text(
        re.compile(
            r"Drifts now \(at most 5 % of this list is wrong\): [^;]+; .*yard/cam-1 .* and \d+ more"
        )
    )
    expect(budget).not_to_contain_text("hall/")  # the site drifts, and none of its devices alone
    expect(page.locator("tr", has_text="site hall")).to_contain_text("alarm")
    expect(page.locator("tr", has_text="site yard")).to_contain_text("armed")
    browser.keep("incidents")
    assert browser.faults == []


def test_of_many_devices_a_page_is_shown_and_the_others_are_found(
    start: Start, bundle: Path, browser: Browser, tmp_path: Path
) -> None:
    store = FleetStore(tmp_path / "fleet.sqlite", bundle)
    source = Source(bundle, seed=1)
    window, online = source.window(), source.status()
    names = [f"{site}/cam-{n:02}" for site in ("hall", "yard") for n in range(A_PAGE)]
    heard = [name for name in names if name != "yard/cam-07"]  # that one is off line
    store.send(*((name, online) for name in heard), *((name, window) for name in names))
    store.engine.dispose()
    collector = start("--embedded-broker").wait_ready()
    page, rows = browser.page, browser.page.locator("tr[data-device]")
    page.goto(collector.page)
    expect(rows).to_have_count(A_PAGE)
    expect(rows.first).to_contain_text("yard")  # trouble first
    expect(rows.first).to_contain_text("cam-07")
    expect(page.locator("body")).to_contain_text(f"1 to {A_PAGE} of {2 * A_PAGE}")
    browser.keep("many")
    page.locator("button", has_text="chevron_right").click()
    expect(page.locator("body")).to_contain_text(f"{A_PAGE + 1} to {2 * A_PAGE} of {2 * A_PAGE}")
    expect(rows.last).to_contain_text("cam-24")
    # What is looked for stays while the page keeps itself fresh.
    page.get_by_placeholder("Site, device, model").fill("yard 03")
    expect(rows).to_have_count(1)
    with wire("yard", "cam-03", collector.host, collector.port) as device:
        source.sequence = 1
        device.send(source.window())
        device.wait_stored(2)
        expect(rows.first).to_contain_text("80 served")
    expect(rows).to_have_count(1)
    assert browser.faults == []


def test_a_device_whose_windows_are_refused_says_why(
    start: Start, bundle: Path, browser: Browser, tmp_path: Path
) -> None:
    store = FleetStore(tmp_path / "fleet.sqlite", bundle)
    source = Source(bundle, seed=1)
    store.send(("hall/cam", source.status()), *(("hall/cam", w) for w in source.windows(8)))
    foreign = [msgspec.structs.replace(w, baseline="f" * 64) for w in source.windows(3)]
    store.send(*(("hall/cam", window) for window in foreign))
    store.engine.dispose()
    collector = start("--embedded-broker").wait_ready()
    page = browser.page
    page.goto(collector.page)
    row = page.locator("tr[data-device=cam]")
    expect(row.locator(".badge")).to_have_text("windows refused")
    expect(row).to_contain_text("statistics of the baseline ffff")
    page.goto(f"{collector.page}/device/hall/cam")
    card = page.locator(".card", has_text="Windows refused or not judged")
    expect(card.locator("tr", has_text="3 windows")).to_contain_text("of the baseline ffff")
    expect(page.locator("body")).to_contain_text(re.compile("Below is what was last taken of it"))
    expect(page.locator(".statistics > .card").first).to_have_css("opacity", "0.6")
    browser.keep("refused")
    assert browser.faults == []


def test_an_empty_fleet_says_how_to_begin(start: Start, browser: Browser) -> None:
    collector = start("--embedded-broker").wait_ready()
    browser.page.goto(collector.page)
    expect(browser.page.locator("body")).to_contain_text("No device has reported yet")
    expect(browser.page.locator("code")).to_contain_text(
        f"edgeml agent run --bundle MODEL.edgeml --broker {collector.host}:{collector.port}"
    )
    browser.page.goto(f"{collector.page}/device/hall/nobody")
    expect(browser.page.locator("body")).to_contain_text("No device nobody of site hall")
    browser.keep("empty")


def test_windows_without_a_bundle_and_names_from_outside_are_shown_as_text(
    start: Start, bundle: Path, browser: Browser
) -> None:
    collector = start("--embedded-broker").wait_ready()
    source = Source(bundle, seed=1)
    with wire("hall", "cam", collector.host, collector.port) as device:
        device.send(source.status(system="<img src=x onerror=alert(1)>"), source.window())
        device.wait_stored(1)
        browser.page.goto(collector.page)
        expect(browser.page.locator("body")).to_contain_text("Windows wait for their bundle")
        expect(browser.page.locator("code")).to_have_text("edgeml fleet add tiny-1.0.edgeml")
        browser.page.goto(f"{collector.page}/device/hall/cam")
        expect(browser.page.locator("body")).to_contain_text("<img src=x")
        assert browser.page.locator("img[src=x]").count() == 0
    browser.keep("waiting")


def test_a_person_logs_in_and_out(
    start: Start, bundle: Path, browser: Browser, tmp_path: Path
) -> None:
    collector = start("--embedded-broker", "--token-file", str(token_file(tmp_path))).wait_ready()
    page = browser.page
    page.goto(f"{collector.page}/device/hall/nobody")
    page.get_by_label("Access token").fill("a wrong one")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("form")).to_contain_text("That is not the token.")
    browser.keep("login")
    page.get_by_label("Access token").fill(TOKEN)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("body")).to_contain_text("No device nobody of site hall")  # where one was
    (cookie,) = page.context.cookies()
    assert (cookie.get("httpOnly"), cookie.get("sameSite")) == (True, "Strict")
    assert TOKEN not in cookie.get("value", "")
    # A link of another site leads to the page, not to the login.
    elsewhere = tmp_path / "elsewhere.html"
    elsewhere.write_text(f'<a href="{collector.page}/">the fleet</a>')
    page.goto(elsewhere.as_uri())
    page.get_by_text("the fleet").click()
    expect(page.locator("body")).to_contain_text("No device has reported yet")
    # The page is alive: its web socket was let in, too.
    with wire("hall", "cam", collector.host, collector.port) as device:
        device.send(Source(bundle, seed=1).status())
        expect(page.locator("tr[data-device=cam]")).to_be_visible()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Access token")).to_be_visible()
    assert page.context.cookies() == []
