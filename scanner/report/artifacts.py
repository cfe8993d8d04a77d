"""An outcome with its frames in, what its reader looks at out: the report, and the picture with the evidence on it.

One reason: they are made where the frames are, at the end of a job, and shown by an API that knows no pixels.
"""

import io
import logging
from typing import Final

from PIL import Image

from scanner.folders import is_full, scratch_folder
from scanner.pipeline import ScanResult
from scanner.report.overlay import draw_overlay, fit
from scanner.report.page import ReportItem, write_report

log = logging.getLogger(__name__)

REPORT, OVERLAY, PLAIN = "report.html", "overlay.jpg", "plain.jpg"
_JPEG_QUALITY: Final = 86  # as in the report


def artifacts_of(result: ScanResult) -> dict[str, bytes]:
    """By name: the report; for a verdict with frames also its worst frame, drawn on and plain.

    Nothing where the disk has no room for them: the verdict stands without.
    """
    try:
        return _drawn(result)
    except OSError as error:
        if not is_full(error):
            raise
        log.warning("no report and no drawings: %s", error)
        return {}


def _drawn(result: ScanResult) -> dict[str, bytes]:
    with scratch_folder() as folder:
        made = {REPORT: write_report([ReportItem(result.outcome, result.frames)], folder).read_bytes()}
    verdict = result.outcome.verdict
    if verdict is None or not result.frames:
        return made
    by_index = {frame.index: frame.pixels for frame in result.frames}
    shown = [position for position, frame in enumerate(verdict.frames) if frame.index in by_index]
    if shown:
        worst = max(shown, key=lambda position: verdict.frames[position].score or 0.0)
        pixels = by_index[verdict.frames[worst].index]
        made[OVERLAY] = _jpeg(Image.fromarray(draw_overlay(pixels, verdict, worst)))
        made[PLAIN] = _jpeg(fit(pixels))
    return made


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)  # subsampling would smear the thin lines
    return buffer.getvalue()
