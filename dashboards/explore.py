"""Explore pre-trained neural operators: ``panel serve dashboards/explore.py``."""

import panel as pn
from explorer.app import Explorer
from explorer.door import admitted

with admitted() as inside:
    if inside:
        pn.extension()
        Explorer().page().servable()
