"""axe-core, from npm by the lock file: a page in, what would keep people with disabilities from using it out."""

from browsing import EXTENSION, Inside
from playwright.sync_api import Page

AXE = EXTENSION / "node_modules" / "axe-core" / "axe.min.js"
# What still fades in has the contrast of that moment, not its own: whatever ends is waited for.
ASK = """Promise.allSettled(%s.getAnimations()
  .filter((one) => Number.isFinite(one.effect.getComputedTiming().endTime)).map((one) => one.finished))
  .then(() => axe.run(%s, { resultTypes: ['violations'] })).then(({ violations }) => violations
  .filter(({ impact }) => impact === 'serious' || impact === 'critical')
  .flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${target}: ${failureSummary}`)))"""


def findings(page: Page) -> list[str]:
    """Serious and critical findings of a page."""
    page.evaluate(AXE.read_text(encoding="utf-8") + "; null")
    return page.evaluate(ASK % ("document", "document"))


def findings_inside(inside: Inside) -> list[str]:
    """The same of what the extension shows in a page; its own world may open the closed shadow root."""
    inside.run(AXE.read_text(encoding="utf-8") + "; null")
    inside.run(
        "Object.defineProperty(host.shadow.host, 'shadowRoot', { value: host.shadow, configurable: true }); null"
    )
    return inside.run(ASK % ("host.shadow", "host.shadow.host"))
