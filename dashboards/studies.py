"""Results of studies as the paper's figures: ``panel serve dashboards/explore.py dashboards/studies.py``."""

import panel as pn
from explorer.studies_page import Studies

pn.extension()

Studies().page().servable()
