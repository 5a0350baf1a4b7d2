# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The status of a group as a page that a team keeps open. Private to this collection.

One file that asks for nothing else, without a script. What a color says, a word or a pattern says too.
"""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, Any

from ansible_collections.beamops.bluegreen.plugins.module_utils._figures import STEP
from ansible_collections.beamops.bluegreen.plugins.module_utils._slots import named
from ansible_collections.beamops.bluegreen.plugins.module_utils._validate import COLORS
from ansible_collections.beamops.bluegreen.plugins.plugin_utils import _messages, _status_report

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# Foreground, background, of cards, and of lines; what is less important; what is wrong; the slots. Each is readable on both backgrounds.
LIGHT = {"fg": "#1b1f24", "bg": "#ffffff", "card": "#f5f7f9", "line": "#c9d0d8", "dim": "#57606a", "bad": "#b3261e"}
LIGHT |= {"blue": "#1259b8", "green": "#1f6f2b"}
DARK = {"fg": "#e6e9ed", "bg": "#14171b", "card": "#1d2228", "line": "#3b434d", "dim": "#a3adb8", "bad": "#ff9a8f"}
DARK |= {"blue": "#8ab8ff", "green": "#8fd19a"}

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); margin: 0 auto; padding: 1.25rem; max-width: 76rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 0; } h3 { font-size: 1rem; margin: 0; } p { margin: .25rem 0; }
header, .title { display: flex; flex-wrap: wrap; gap: .25rem .75rem; align-items: baseline; }
header { margin-bottom: 1rem; }
.dim, dt, figcaption, .axis { color: var(--dim); } .bad { color: var(--bad); font-weight: 600; }
.hosts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 32rem), 1fr)); gap: 1rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .9rem 1rem; min-width: 0; }
.slots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); gap: .75rem; margin: .6rem 0; }
.slot { border-left: .3rem dashed; padding-left: .7rem; min-width: 0; } .slot.live { border-left-style: solid; }
.blue { border-color: var(--blue); } .green { border-color: var(--green); }
.blue h3 { color: var(--blue); } .green h3 { color: var(--green); }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0 .6rem; margin: .2rem 0 0; font-size: .9rem; } dd { margin: 0; }
code, dd, li, p { overflow-wrap: anywhere; } code { font-size: .92em; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); gap: .75rem; }
figure { margin: 0; } figcaption { font-size: .85rem; } svg { display: block; width: 100%; height: 3.6rem; }
.bar-blue { fill: var(--blue); } .bar-green { fill: var(--green); } .gaps { stroke: var(--card); stroke-width: 2; } .base { stroke: var(--line); }
.axis { display: flex; justify-content: space-between; font-size: .75rem; }
ol { list-style: none; padding: 0; margin: .5rem 0; } ol li { border-top: 1px solid var(--line); padding: .4rem 0; }
section { margin: 1.25rem 0; } ul { margin: .3rem 0 0; padding-left: 1.1rem; } time { font-variant-numeric: tabular-nums; }
@media print { article { break-inside: avoid; } }
"""


def _palette(colors: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in colors.items())


def _text(value: object) -> str:
    return html.escape(str(value))


def _seconds(at: object) -> int | None:
    try:
        return _status_report.seconds_of(str(at))
    except ValueError:
        return None


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M", time.gmtime(seconds))


def ago(at: str | None, now: str) -> str:
    """How long ago something was, in words such as V(3 d) or V(20 min); the time itself where that is not known."""
    then, today = _seconds(at), _seconds(now)
    if then is None or today is None:
        return str(at or "never")
    minutes = max(0, today - then) // 60
    if minutes < 60:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 48 * 60 else f"{minutes // 1440} d ago"


# --- slots ---------------------------------------------------------------------------------------------------------------


def _slot(color: str, slot: Mapping[str, Any], is_live: bool, now: str) -> str:
    title = f"<h3>{color}: {'live' if is_live else 'idle'}</h3>"
    kind = f'<div class="slot {color}{" live" if is_live else ""}">'
    if not slot["release"]:
        return f"{kind}{title}<p>empty</p></div>"
    health = _messages.health(slot)
    bad = health == "unhealthy" or (is_live and health == "stopped")
    facts = {"health": f'<span class="bad">{health}</span>' if bad else health}
    if slot["rolled_back"]:
        facts["was"] = '<span class="bad">rolled back from</span>'
    if slot["env"]:
        differs = _messages.env_words(slot["env_changes"])
        facts["env"] = f"<code>{_text(slot['env'][:12])}</code>" + (f" {_text(differs)}" if differs else "")
    if slot["commit"]:
        facts["commit"] = f"<code>{_text(slot['commit'])}</code>"
    facts["deployed"] = _text(ago(slot["deployed_at"], now))
    if slot["promoted_at"]:
        facts["went live"] = _text(ago(slot["promoted_at"], now))
    if slot["pending_migrations"]:
        facts["migrations"] = f"{len(slot['pending_migrations'])} pending"
    if slot["restarts"]:
        facts["restarts"] = f"{int(slot['restarts'])} in the last hour"
    node = slot["node"]
    if node:
        sees = (
            "does not say whom it sees"
            if node["sees"] is None
            else f"sees {len(node['sees'])} other node{'s' * (len(node['sees']) != 1)}"
        )
        missing = f', <span class="bad">not {_text(", ".join(node["missing"]))}</span>' if node["missing"] else ""
        facts["cluster"] = sees + missing
    listed = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in facts.items())
    return f"{kind}{title}<code>{_text(slot['release'])}</code><dl>{listed}</dl></div>"


# --- plots ---------------------------------------------------------------------------------------------------------------

_WIDTH, _HEIGHT = 480, 60
_BARS = 86400 // STEP


def _half_hours(figures: Sequence[Mapping[str, Any]], now: int) -> list[Mapping[str, Any] | None]:
    """One for each half hour of the last day, oldest first: the figures of the site, under the slot that answered most of it."""
    first = now // STEP * STEP - (_BARS - 1) * STEP
    found: list[Any] = [None] * _BARS
    for one in figures:
        place = (one["at"] - first) // STEP
        if not 0 <= place < _BARS or not one["requests"] or one["color"] not in COLORS:
            continue
        before = found[place] or {"requests": 0, "errors": 0, "most": 0}
        most = one["requests"] > before["most"]
        found[place] = {
            **(one if most else before),
            "requests": before["requests"] + one["requests"],
            "errors": before["errors"] + one["errors"],
            "most": max(before["most"], one["requests"]),
        }
    return found


def _plot(
    title: str, halves: Sequence[Any], value: Callable[[Any], float | None], show: Callable[[float], str], now: int
) -> str:
    """Bars for a day, and in words what they show at their highest."""
    values = [None if one is None else value(one) for one in halves]
    known = [(found, place) for place, found in enumerate(values) if found is not None]
    if not known:
        return ""
    highest, at = max(known)
    first = now // STEP * STEP - (_BARS - 1) * STEP
    bars, step = [], _WIDTH / _BARS
    for found, place in known:
        height = max(1.5, found / highest * (_HEIGHT - 4)) if found else 0
        x, y = place * step, _HEIGHT - height
        color = halves[place]["color"]
        bars.append(f'<rect class="bar-{color}" x="{x:.1f}" y="{y:.1f}" width="{step - 1:.1f}" height="{height:.1f}"/>')
        if color == "green" and height > 4:
            # Green ones are striped, for who cannot tell them by the color.
            stripes = "".join(f"M{x:.1f} {_HEIGHT - line}h{step - 1:.1f}" for line in range(4, int(height), 6))
            bars.append(f'<path class="gaps" d="{stripes}"/>')
    last, place = known[-1]
    # The half hour that has just begun may not have any yet.
    when = "now" if place >= len(values) - 2 else f"at {_clock(first + place * STEP)}"
    words = f"{title}: {show(last)} {when}" + (
        f", highest {show(highest)} at {_clock(first + at * STEP)}" if highest and at != place else ""
    )
    picture = f'<path class="base" d="M0 {_HEIGHT - 0.5}H{_WIDTH}"/>{"".join(bars)}'
    return (
        f'<figure><figcaption>{words}</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{words}">{picture}</svg><div class="axis"><span>24 h ago</span><span>now</span></div></figure>'
    )


def _percent(share: float) -> str:
    return "0 %" if not share else f"{share:.2f} %" if share < 10 else f"{share:.0f} %"


def _plots(figures: Sequence[Mapping[str, Any]] | None, at: str) -> str:
    now = _seconds(at)
    if not figures or now is None:
        return ""
    halves = _half_hours(figures, now)
    told = [one for one in halves if one]
    if not told:
        return ""
    plots = _plot("5xx", halves, lambda one: 100 * one["errors"] / one["requests"], _percent, now)
    plots += _plot("p95", halves, lambda one: one["p95"], lambda ms: f"{ms:.0f} ms", now)
    total, errors = sum(one["requests"] for one in told), sum(one["errors"] for one in told)
    slots = "Blue answered where the bars are solid, green where they are striped."
    summary = f"{total:,} requests in 24 h, {errors:,} failed (5xx). {slots}"
    return f'<div class="plots">{plots}</div><p class="dim">{summary}</p>'


# --- a host, and what happened --------------------------------------------------------------------------------------------


def _host(name: str, host: Mapping[str, Any], now: str) -> str:
    if not host["ok"]:
        remarks = "; ".join(host["remarks"]) or "unknown"
        return f'<article><h2>{_text(name)}</h2><p class="bad">{_text(remarks)}</p></article>'
    agree = "consistent" if host["agree"] else '<span class="bad">in doubt</span>'
    words = [agree] if host["web"] else ["worker", agree]
    if host["certificate"]:
        days = int(host["certificate"]["days_left"])
        words.append(
            f"certificate: {days} days left" if days > 14 else f'<span class="bad">certificate: {days} days left</span>'
        )
    if host["canary"]:
        words.append(f"canary: {int(host['canary'])} %")
    if host["maintenance"]:
        words.append('<span class="bad">maintenance</span>')
    if host["lock"]:
        words.append(f"locked by {_text(host['lock'].get('holder'))}")
    live = host["live"] if host["truths"]["link"] else None
    slots = "".join(_slot(color, host["slots"][color], color == live, now) for color in COLORS)
    remarks = "".join(f"<li>{_text(line)}</li>" for line in host["remarks"])
    listed = '<ul class="bad">' if not host["agree"] else "<ul>"
    remarks = f"{listed}{remarks}</ul>" if remarks else ""
    title = f'<div class="title"><h2>{_text(name)}</h2><span>{", ".join(words)}</span></div>'
    return f'<article>{title}<div class="slots">{slots}</div>{_plots(host.get("figures"), now)}{remarks}</article>'


def _run(entries: Sequence[tuple[str, Mapping[str, Any]]], now: str) -> str:
    """What one run did, on all hosts that it was at."""
    entry = entries[0][1]
    results = {str(one.get("result")) for _host, one in entries}
    result = "ok" if results == {"ok"} else min(results - {"ok"})
    ends: list[dict] = [entry.get("from") or {}, entry.get("to") or {}]
    before, after = (f"{end.get('color') or '-'} {named(end)}" for end in ends)
    change = f"{_text(before)} → {_text(after)}" if before != after else f"{_text(after)} stays live" if ends[1] else ""
    why = next((str(one["why"]) for _host, one in entries if one.get("why")), "")
    why = f'<br><span class="bad">{_text(_messages.shortened(why))}</span>' if why else ""
    mark = "" if result == "ok" else f' <span class="bad">{_text(result)}</span>'
    hosts = ", ".join(host for host, _entry in entries)
    at = str(entry.get("at"))
    return (
        f'<li><time datetime="{_text(at)}">{_text(at.replace("T", " ").replace("Z", ""))}</time> <span class="dim">({_text(ago(at, now))})</span> '
        f"<strong>{_text(entry.get('operation'))}</strong>{mark} by {_text(entry.get('who'))}<br>{change} "
        f'<span class="dim">on {_text(hosts)}, {_text(entry.get("seconds"))} s</span>{why}</li>'
    )


def _timeline(hosts: Mapping[str, Mapping[str, Any]], now: str) -> str:
    runs: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for name, host in hosts.items():
        for entry in host.get("history") or []:
            runs.setdefault(str(entry.get("run")), []).append((name, entry))
    newest = sorted(runs.values(), key=lambda entries: str(entries[0][1].get("at")), reverse=True)
    listed = "".join(_run(entries, now) for entries in newest)
    return f"<section><h2>Who did what</h2><ol>{listed}</ol></section>" if listed else ""


def as_html(found: Mapping[str, Any]) -> str:
    """The page.

    :param found: as V(_status_report.report) gives it.
    """
    app, at, hosts = _text(found["app"]), found["at"], found["hosts"]
    verdict = '<span class="bad">in doubt</span>' if found["in_doubt"] else "consistent"
    lines = [f'<p class="bad">{_text(line)}</p>' for line in found["remarks"]]
    lines += [f"<p><code>{_text(line)}</code></p>" for line in found["next"]]
    count = f"{len(hosts)} host{'s' * (len(hosts) != 1)}"
    cards = "\n".join(_host(name, host, at) for name, host in hosts.items())
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{app}: {"in doubt" if found["in_doubt"] else "fine"}</title>
<style>
:root {{ color-scheme: light dark; {_palette(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_palette(DARK)} }} }}{_STYLE}</style>
</head>
<body>
<header><h1>{app}</h1><strong>{verdict}</strong><span class="dim">{count}, as of {_text(at.replace("T", " ").replace("Z", " UTC"))}</span></header>
<main>
{chr(10).join(lines)}
<section class="hosts">
{cards}
</section>
{_timeline(hosts, at)}
</main>
</body>
</html>
"""
