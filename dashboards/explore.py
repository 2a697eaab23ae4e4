"""Explore pre-trained neural operators: ``panel serve dashboards/explore.py``."""

import panel as pn
from explorer.door import admitted
from explorer.pages import open_page

with admitted() as inside:
    if inside:
        pn.extension()
        open_page("explore").servable()
