"""Explore pre-trained neural operators: ``panel serve dashboards/explore.py``."""

import panel as pn
from explorer.pages import open_page
from explorer.serving.sessions import session_slot

with session_slot() as free:
    if free:
        pn.extension()
        open_page("explore").servable()
