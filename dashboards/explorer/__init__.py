"""The dashboard. Where to look:

- `app`: one visitor's page. `stage`: the component in the browser and all messages from it; its scripts are in
  ``browser``. `setup`: what its controls offer. `pages`: which pages there are, and what they have in common.
- `state`: what a visitor has set. `link`: the same as an address. `gone`: what an address names and is not here.
- `frame_loop` and `compute`: state in, arrays out. `error_curves`, `insight`, `tabs`: what is worked out beside it.
- `jobs` and `adapt`: fine-tuning in the background, and its view. `settings`: what is asked for, and what comes out.
- `bundles`, `shared`: which trained operators there are. `predictions`: what is shown of them.
- `lessons`, `lesson_card`; `controls`: the drawer; `exports`: files to keep.
- `text`, `colours`, `parts`: words, colours, widgets.
- `session_loop`, `workers`: event loops and threads. ``serving``: what only a public server needs.
- ``studies``: the studies page. `own_data`, `teach`: the pages of own data and for teachers. `films`: evolutions.
- `server`: the web server. `notebook`: the stage in a notebook. ``site``: the page as files that need no server.
"""
