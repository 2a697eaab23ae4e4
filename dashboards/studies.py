"""Results of studies as the paper's figures: ``panel serve dashboards/explore.py dashboards/studies.py``."""

import panel as pn
from explorer.door import admitted
from explorer.pages import open_page

with admitted() as inside:
    if inside:
        pn.extension()
        open_page("studies").servable()
