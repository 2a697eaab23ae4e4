"""Results of studies as the paper's figures: ``panel serve dashboards/explore.py dashboards/studies.py``."""

import panel as pn
from explorer.pages import open_page
from explorer.serving.sessions import session_slot

with session_slot() as free:
    if free:
        pn.extension()
        open_page("studies").servable()
