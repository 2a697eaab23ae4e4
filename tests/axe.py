"""What axe, the checker of accessibility, finds on a page: its script is part of a package, so it works offline."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

GRAVE = ("serious", "critical")

# Whether all components have a theme, and no colour is still on its way.
SETTLED = """theme => {
  const roots = [document], other = {light: 'dark', dark: 'light'}[theme]
  for (const root of roots)
    for (const {shadowRoot} of root.querySelectorAll('*')) if (shadowRoot) roots.push(shadowRoot)
  return roots.every(root => !root.querySelector(`.mui-${other}`)
    && root.getAnimations().every(one => one.effect.getTiming().iterations === Infinity)) }"""


def serious_findings(page) -> list[str]:
    """The serious and critical findings on a page of Playwright's, one line for each element."""
    return [
        f"{found['id']} ({found['impact']}): {found['help']}: {element['html'][:200]}"
        for found in Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        if found["impact"] in GRAVE
        for element in found["nodes"]
    ]


def findings_in_both_themes(page) -> list[str]:
    """Those in light and those in dark, on a page that follows the system's theme."""
    found = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        expect(page.locator("html")).to_have_attribute("data-theme", theme)
        page.wait_for_function(SETTLED, arg=theme)
        found += serious_findings(page)
    return found
