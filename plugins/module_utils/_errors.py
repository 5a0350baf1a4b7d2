# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong on purpose. Private to this collection."""

from __future__ import annotations

from typing import Any


class Refused(ValueError):
    """Input outside the allow-list; the text is meant for the person who typed it."""


class Failure(Exception):
    """What could not be done. The text is for the person at the terminal; V(extra) goes into the module's result."""

    def __init__(self, text: str, **extra: Any) -> None:
        super().__init__(text)
        self.extra = extra
