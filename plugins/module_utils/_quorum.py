# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that comes back alone: whether most of its group serves another release, so that a balancer should leave it out.

Set-up installs this as C(<root>/bin/quorum.py), where a timer runs it at boot and each minute. So it needs nothing but Python. Private to this
collection.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

# Where a host tells the others which release is live: a hash, which tells visitors nothing.
OFFER = "/.well-known/bluegreen-live"
_ID = re.compile(r"\A[0-9a-f]{16}\Z")
_ASK_SECONDS = 2.0
# Between two looks that have to agree: a group that switches is not one for some milliseconds.
_AGAIN_SECONDS = 5.0


def is_alone(own: str, told: Iterable[str], hosts: int) -> bool | None:
    """Whether a host is one of a minority; V(None) where it cannot see a majority of its whole group, which leaves it as it is.

    :param own: what it serves.
    :param told: what those of the others serve that have answered.
    :param hosts: how many the group has, with this one.
    """
    votes = Counter([own, *told])
    most, count = votes.most_common(1)[0]
    return most != own if 2 * count > hosts else None


def ask(address: str, domain: str) -> str:
    """What another host serves; empty if it does not tell."""
    connection = http.client.HTTPConnection(address, timeout=_ASK_SECONDS)
    try:
        connection.request("GET", OFFER, headers={"Host": domain, "User-Agent": "bluegreen"})
        answer = connection.getresponse()
        text = answer.read(64).decode("ascii", "replace").strip()
        return text if answer.status == 200 and _ID.match(text) else ""
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


class Host:
    """This host, as set-up described it in C(<root>/quorum.json): root, domain, and addresses of the C(peers)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.root, self.domain, self.peers = config["root"], config["domain"], config["peers"]
        # nginx looks for it.
        self.mark = f"{self.root}/alone"

    def look(self) -> tuple[bool | None, str]:
        """As V(is_alone), and the same in words."""
        try:
            with open(f"{self.root}/live/id", encoding="ascii") as stream:
                own = stream.read().strip()
        except OSError:
            return None, ""
        told = [found for found in (ask(address, self.domain) for address in self.peers) if found]
        hosts = len(self.peers) + 1
        other = Counter(told).most_common(1)[0][1] if told else 0
        return is_alone(own, told, hosts), f"{other} of {hosts} hosts serve another release"

    def act(self) -> str:
        """What was done, in words; empty for nothing."""
        if os.path.exists(f"{self.root}/lock"):
            # A run is at work, which makes the group one, or says that it cannot.
            return ""
        was, (alone, words) = os.path.exists(self.mark), self.look()
        if alone is None or alone == was:
            return ""
        time.sleep(_AGAIN_SECONDS)
        if self.look()[0] != alone or os.path.exists(f"{self.root}/lock"):
            return ""
        if not alone:
            os.unlink(self.mark)
            return "in again: most of the group serve what this host serves"
        self.close_shortcuts()
        with open(f"{self.mark}.new", "w", encoding="ascii") as stream:
            stream.write(f"{words}\n")
        os.rename(f"{self.mark}.new", self.mark)
        # A module that was at work may have opened them meanwhile.
        self.close_shortcuts()
        return f"out: {words}"

    def close_shortcuts(self) -> None:
        """Nothing keeps nginx from looking for the mark."""
        for color in ("blue", "green"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.root}/slots/{color}/all-{color}-none")


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as stream:
        said = Host(json.load(stream)).act()
    if said:
        sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main()
