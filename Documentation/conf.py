# SPDX-License-Identifier: GPL-2.0
"""Settings of "make htmldocs"."""

project = "rblkback"
author = "The rblkback authors"

# A reference to a page or a section that does not exist is a warning.
nitpicky = True
# Source text is C, shell or prose, seldom Python.
highlight_language = "none"
# Quotes and dashes stay as they are written: many are parts of commands.
smartquotes = False

html_theme = "alabaster"
html_theme_options = {"page_width": "75em", "fixed_sidebar": True}
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
