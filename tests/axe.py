"""What axe, the checker of accessibility, finds on a page: its script is part of a package, so it works offline."""

from axe_playwright_python.sync_playwright import Axe

GRAVE = ("serious", "critical")


def serious_findings(page) -> list[str]:
    """The serious and critical findings on a page of Playwright's, one line for each element."""
    return [
        f"{found['id']} ({found['impact']}): {found['help']}: {element['html'][:200]}"
        for found in Axe().run(page).response["violations"]
        if found["impact"] in GRAVE
        for element in found["nodes"]
    ]
