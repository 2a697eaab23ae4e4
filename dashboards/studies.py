"""Results of studies as the paper's figures: ``panel serve dashboards/explore.py dashboards/studies.py``."""

import panel as pn
from explorer.door import admitted
from explorer.studies_page import Studies

with admitted() as inside:
    if inside:
        pn.extension()
        Studies().page().servable()
