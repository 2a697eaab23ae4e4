"""The parts of the explore dashboard: state and jobs know nothing of Panel, views only display."""
