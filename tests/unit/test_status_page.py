# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page that status.yml writes: what is in it, and how a real browser shows it."""

from __future__ import annotations

import html.parser
import itertools
import json
import pathlib
import re
import shutil
import subprocess

import pytest
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _status_page, _status_report
from infos import A, B, bad, info

AT = "2026-01-01T00:00:00Z"
NOW = 1767225600
NEVER_CLOSED = ("meta", "br")


class Page(html.parser.HTMLParser):
    """Raises AssertionError where tags do not match; keeps the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.words = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in NEVER_CLOSED:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def page(infos, at=AT):
    return _status_page.as_html(_status_report.report(infos, "my_app", at))


def words(infos, at=AT):
    return " ".join(Page(page(infos, at)).words)


def run(number, host, at, **more):
    before, after = {"color": "blue", "release": A, "env": "1" * 12}, {"color": "green", "release": B, "env": "2" * 12}
    entry = {"at": at, "who": "ann@laptop", "operation": "promote", "run": f"run{number}", "from": before, "to": after}
    return {**entry, "result": "ok", "why": "", "seconds": 7, "host": host, **more}


def a_day(seed=0):
    """Half hours of a site that went from blue to green, and was bad for a while."""
    return [
        {
            "at": NOW - half * 1800,
            "color": "blue" if half > 20 else "green",
            "requests": 40_000 + 997 * ((half * 7 + seed) % 11),
            "errors": 1300 if half == 12 else half % 3,
            "p95": 480.0 if half == 12 else 60.0 + 3 * ((half + seed) % 9),
        }
        for half in range(47, -1, -1)
    ]


def a_group():
    """Three hosts with all that a page may have to say."""
    certificate = {"issuer": "x", "names": [], "not_after": "2026-01-02T00:00:00Z", "days_left": 9, "worry": ""}
    history = [
        run(1, "web1", "2025-12-30T10:00:00Z"),
        run(2, "web1", "2025-12-31T09:01:00Z", result="failed", why="green 5xx 3.1 % of 1,204"),
    ]
    web1 = info(live="green", canary=5, figures=a_day(), history=history, certificate=certificate)
    web2 = info(
        live="green",
        figures=a_day(3),
        history=[run(1, "web2", "2025-12-30T10:00:00Z")],
        certificate={**certificate, "days_left": 71},
    )
    web2["deployment_id"] = "blue"
    web2["disagreements"] = ["nginx sends traffic to blue, and the symlink says green"]
    for one in (web1, web2):
        one["slots"]["green"].update(
            deployed_at="2025-12-30T09:50:00Z", promoted_at="2025-12-30T10:00:04Z", commit="3fa1b2c"
        )
        one["slots"]["blue"].update(deployed_at="2025-12-31T23:30:00Z", pending_migrations=["20260101_x"], restarts=2)
        one["slots"]["blue"]["env_changes"] = {"added": ["POOL_SIZE"], "removed": [], "changed": ["SECRET_KEY_BASE"]}
    worker = info(web=False, live="green", cookie="x")
    worker["slots"]["green"]["node"] = {"name": "my_app@10.0.0.9", "told": [], "sees": ["my_app@10.0.0.1"], "key": "x"}
    worker["slots"]["green"]["node_listens"] = []
    return {
        "web1.example.com": web1,
        "web2.example.com": web2,
        "worker1.example.com": worker,
        "web3.example.com": {"unreachable": True, "msg": "no route to host"},
    }


def test_a_browser_gets_one_page_that_says_in_words_what_it_says_in_colors():
    infos = {"a": info(), "<b>": {"failed": True, "msg": "no <script>"}}
    text = page(infos)
    found = words(infos)
    for word in (A, B, "blue: live", "green: idle", "healthy", "in doubt", "<b>", "no <script>"):
        assert word in found, word
    assert "<script" not in text and "http" not in text
    fine = words({"a": info()})
    assert "in doubt" not in fine and "consistent" in fine


def test_a_browser_sees_how_long_the_certificate_is_good():
    certificate = {"issuer": "x", "names": [], "not_after": "2026-01-02T00:00:00Z", "days_left": 71, "worry": ""}
    found = words({"a": info(certificate=certificate), "b": info()})
    assert found.count("certificate: 71 days left") == found.count("certificate") == 1


def test_a_slot_that_was_rolled_back_from_or_is_down_says_so():
    down = info(rolled_back=[bad(B)])
    down["slots"]["blue"].update(running=False, healthy=False)
    found = words({"a": down})
    assert "rolled back from" in found and "stopped" in found
    assert _status_report.report({"a": down}, "my_app", AT)["hosts"]["a"]["slots"]["green"]["rolled_back"]


def test_a_team_sees_how_old_things_are_who_did_what_and_how_the_day_went():
    found = words(a_group())
    for word in (
        "38 h ago",
        "30 min ago",
        "3fa1b2c",
        "+POOL_SIZE, ~SECRET_KEY_BASE",
        "1 pending",
        "2 in the last hour",
        "sees 1 other node",
        "canary: 5 %",
        "2025-12-30 10:00:00",
        "promote",
        "by ann@laptop",
        f"blue {A} env 1111 → green {B} env 2222",
        "on web1.example.com, web2.example.com, 7 s",
        "green 5xx 3.1 % of 1,204",
        "5xx: 0 % now",
        " % at 18:00",
        "p95: 60 ms now, highest 480 ms at 18:00",
        "requests in 24 h",
    ):
        assert word in found, word
    # A run is told once, the last one first.
    assert found.count("2025-12-30 10:00:00") == 1 and found.index("2025-12-31 09:01") < found.index("2025-12-30 10:00")


def test_times_that_nobody_can_read_are_shown_as_they_are():
    assert [
        _status_page.ago(at, AT)
        for at in (None, "t", "2025-12-31T23:59:01Z", "2025-12-31T11:00:00Z", "2025-12-20T00:00:00Z")
    ] == [
        "never",
        "t",
        "0 min ago",
        "13 h ago",
        "12 d ago",
    ]


def test_a_half_hour_that_both_slots_had_a_part_of_is_one():
    at = NOW - 3600
    figures = [
        {"at": at, "color": "blue", "requests": 900, "errors": 0, "p95": 50.0},
        {"at": at, "color": "green", "requests": 100, "errors": 10, "p95": 90.0},
        {"at": NOW - 3 * 86400, "color": "green", "requests": 100, "errors": 100, "p95": 90.0},
        {"at": NOW, "color": "green", "requests": 4, "errors": 4, "p95": None},
    ]
    found = words({"a": info(figures=figures)})
    assert "5xx: 100 % now" in found and "p95: 50 ms at 23:00" in found
    assert "1,004 requests in 24 h, 14 failed" in found
    assert "requests in 24 h" not in words({"a": info(figures=[])})
    # Of a host that says what no host of ours says.
    strange = {"at": NOW, "color": '"><script>', "requests": 9, "errors": 0, "p95": 1.0}
    assert "<script" not in page({"a": info(figures=[strange])})
    # Nobody asks at night, or nginx is down.
    found = words(
        {"a": info(figures=[{"at": NOW - 9 * 3600, "color": "green", "requests": 10, "errors": 1, "p95": 50.0}])}
    )
    assert "5xx: 10 % at 15:00" in found and "now," not in found


# --- in a browser --------------------------------------------------------------------------------------------------------

# What a script of the test, and never of the page, finds out about how it is shown: text that nobody can read (below 4.5:1, WCAG 2.2, 1.4.3), and
# how far the page is wider than the window.
_LOOK = """
<script>
addEventListener("load", () => {
  const parse = text => text.match(/[0-9.]+/g).map(Number);
  const light = text => {
    const [r, g, b] = parse(text).slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = node => {
    for (; node; node = node.parentElement) {
      const found = getComputedStyle(node).backgroundColor;
      if (parse(found)[3] !== 0) return found;
    }
    return "rgb(255, 255, 255)";
  };
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const found = {dark, wider: document.documentElement.scrollWidth - innerWidth, faint: [], texts: 0, window: innerWidth};
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || ["SCRIPT", "STYLE"].includes(node.tagName)) continue;
    found.texts += 1;
    const [a, b] = [light(getComputedStyle(node).color), light(background(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.faint.push([walker.currentNode.data.trim(), ratio]);
  }
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""


def chromium(tmp_path, *words):
    """What a run of it printed to both outputs."""
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={tmp_path}/profile",
        *words,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, done.stderr


@pytest.mark.skipif(not shutil.which("chromium"), reason="no chromium (make units installs that of Debian)")
@pytest.mark.parametrize(("width", "dark"), list(itertools.product((390, 1280), (False, True))), ids=str)
def test_the_page_in_a_browser(tmp_path, width, dark):
    """Everything is readable and nothing is cut off, on a phone and on a desk, by day and by night. The pictures are kept, to be looked at."""
    text = page(a_group())
    (tmp_path / "page.html").write_text(text)
    (tmp_path / "look.html").write_text(text.replace("</body>", f"{_LOOK}</body>"))
    # A window is at least 500 wide, so a phone is a frame in it.
    for name in ("page", "look"):
        frame = f'<iframe src="{name}.html" style="border:0;width:{width}px;height:2400px"></iframe>'
        hear = "<script>onmessage = event => document.title = event.data</script>"
        (tmp_path / f"{name}-frame.html").write_text(f'<title></title>{hear}<body style="margin:0">{frame}')
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    look = ["--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom", f"file://{tmp_path}/look-frame.html"]
    shown, said = chromium(tmp_path, scheme, "--window-size=1280,2400", *look)
    found = json.loads(html.unescape(re.search(r"<title>(.+?)</title>", shown).group(1)))
    assert found["faint"] == [] and found["texts"] > 80
    assert found["window"] == width and found["wider"] <= 0, found
    assert (found["dark"], "CONSOLE" in said) == (dark, False)
    pictures = pathlib.Path(__file__).resolve().parents[2] / "build" / "page"
    pictures.mkdir(parents=True, exist_ok=True)
    picture = pictures / f"{width}-{'dark' if dark else 'light'}.png"
    size = f"--window-size={max(width, 500)},{2400 if width < 500 else 1500}"
    chromium(tmp_path, scheme, size, f"--screenshot={picture}", f"file://{tmp_path}/page-frame.html")
    assert picture.stat().st_size > 20_000
