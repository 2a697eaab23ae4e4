"""Explore pre-trained neural operators: ``panel serve dashboards/explore.py``."""

import panel as pn
from explorer.app import Explorer

pn.extension()

Explorer().page().servable()
