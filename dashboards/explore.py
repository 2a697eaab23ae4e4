"""Explore pre-trained neural operators: ``panel serve dashboards/explore.py``."""

import panel as pn
from explorer.app import Explorer
from explorer.door import admitted
from explorer.parts import quiet

with admitted() as inside:
    if inside:
        pn.extension()
        quiet(Explorer().page()).servable()
