# Copyright: the beamops.bluegreen contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of the documentation site, which `make docs` builds: these pages, and a reference made of the sources."""

from __future__ import annotations

project = "beamops.bluegreen"
copyright = "the beamops.bluegreen contributors"  # pylint: disable=redefined-builtin
extensions = ["myst_parser", "sphinx_antsibull_ext"]
html_theme = "furo"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
myst_heading_anchors = 3
highlight_language = "text"
# The reference leads to labels of Ansible's own documentation, which is not at hand where nothing is fetched.
suppress_warnings = ["ref.ref"]
