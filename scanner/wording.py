"""A verdict in, words for a layperson out: headline, reason, warnings. One place, so that all surfaces say the same.

Every reason tells what was found, where and when, how sure we are, and that it is evidence, not proof.
"""

import math
from collections.abc import Iterator
from typing import Final

import msgspec

from scanner.contract import AttentionMap, FaceEvidence, Label, Media, Region, Verdict

HEADLINES: Final = {
    Label.MANIPULATED: "Signs of manipulation",
    Label.INCONCLUSIVE: "Inconclusive",
    Label.AUTHENTIC: "No sign of manipulation",
    Label.NO_FACE: "No face to judge",
}
STRONG_ODDS = 4.0
"""A score whose odds are this many times those of the threshold is called very strong."""
SHORT_S = 20.0
"""Media shorter than this have their times told in tenths of a second."""
SMALL_FACE_PX = 80
"""Below this a crop of 256 px is enlarged more than 3 times, and traces of forgery are mostly gone."""
# Bits per pixel (video: and frame) below which a medium is heavily compressed. Measured on 75 portraits, 25 photos:
# JPEG at quality 20 falls below for plain portraits, at quality 75 nothing does (least: 0.43; WebP 0.16; AVIF 0.46).
HEAVY_BITS_PER_PIXEL: Final = {"jpeg": 0.25, "webp": 0.10, "avif": 0.08, "heic": 0.08}
HEAVY_VIDEO_BITS_PER_PIXEL = 0.02
NOT_PROOF = "This is evidence, not proof."
# (name, u0, v0, u1, v1): where the parts of a face lie in an aligned crop, from the template of `faces.align`.
PARTS: Final = (
    ("around the mouth", 0.33, 0.63, 0.67, 0.77),
    ("around the eyes", 0.25, 0.33, 0.75, 0.50),
    ("around the nose", 0.40, 0.50, 0.60, 0.63),
    ("on the chin", 0.33, 0.77, 0.67, 0.93),
    ("on the forehead", 0.25, 0.12, 0.75, 0.33),
    ("on the cheeks", 0.20, 0.50, 0.80, 0.77),
)


def reason(verdict: Verdict, *, min_face_px: int) -> str:
    """Why the verdict is what it is, in one or two plain sentences."""
    if verdict.label is Label.NO_FACE:
        rest = "" if verdict.region_threshold is None else ", and no other part of it looks inpainted"
        return f"No face of {min_face_px} px or more was found in {_where_looked(verdict)}{rest}."
    if verdict.score is None:
        return _nothing_fit(verdict)
    if verdict.label is Label.AUTHENTIC:
        return (
            f"No sign of manipulation was found in {_judged(verdict)} ({_scored(verdict)}). "
            f"{NOT_PROOF} A forgery of a kind unknown to the model can be missed."
        )
    if decided_by_region(verdict):
        return _inpainted(verdict)
    if verdict.label is Label.MANIPULATED:
        strength = _strength(of_faces(verdict) or 0.0, verdict.thresholds.manipulated)
        where, too = _culprit(verdict), _inpainted_too(verdict)
        return f"{strength} evidence of manipulation in {where} ({_scored(verdict)}). {too}{NOT_PROOF}"
    return (
        f"Some signs of manipulation in {_culprit(verdict)}, too few to decide ({_scored(verdict)}). "
        "Look for a larger or less compressed copy."
    )


def warnings(verdict: Verdict) -> tuple[str, ...]:
    """What makes the verdict less sure, in words; what the caller warned of comes first, nothing is said twice."""
    return tuple(dict.fromkeys((*verdict.warnings, *_cautions(verdict))))


def clock(time_s: float) -> str:
    """Seconds as m:ss, or h:mm:ss from an hour on.

    >>> clock(75.4)
    '1:15'
    """
    minutes, seconds = divmod(int(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def moment(verdict: Verdict, time_s: float) -> str:
    """A time in the medium, with tenths where the medium is so short that whole seconds would all read the same."""
    if (verdict.media.duration_s or math.inf) >= SHORT_S:
        return clock(time_s)
    return f"0:{math.floor(10 * time_s) / 10:04.1f}"


def number(score: float) -> str:
    """A score with two decimals that never reads as certainty.

    >>> number(0.9999), number(0.0001)
    ('>0.99', '<0.01')
    """
    if score > 0.99:
        return ">0.99"
    return "<0.01" if score < 0.01 else f"{score:.2f}"


def counted(count: int, noun: str) -> str:
    """`1 face`, `3 faces`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def part(attention: AttentionMap) -> str | None:
    """Which part of the face the strongest evidence lies on; null for an empty map."""
    if attention.peak <= 0:
        return None
    row, column = divmod(attention.grid.index(max(attention.grid)), attention.size)
    u, v = (column + 0.5) / attention.size, (row + 0.5) / attention.size
    for name, u0, v0, u1, v1 in PARTS:
        if u0 <= u <= u1 and v0 <= v <= v1:
            return name
    return "at the outline of the face"


def of_faces(verdict: Verdict) -> float | None:
    """What the faces alone say, without what was found elsewhere in a picture."""
    return verdict.frames[0].score if verdict.regions else verdict.score


def decided_by_region(verdict: Verdict) -> bool:
    """Whether it is only for a part of the picture, and not for its faces, that it is called manipulated."""
    return bool(verdict.regions) and (of_faces(verdict) or 0.0) < verdict.thresholds.manipulated


def deciding_limit(verdict: Verdict) -> float:
    """What the score was held against: the threshold of regions where they decide, else that of faces."""
    limit = verdict.region_threshold if decided_by_region(verdict) else None
    return verdict.thresholds.manipulated if limit is None else limit


def region_words(region: Region) -> str:
    """What stands beside the box of a region."""
    return f"inpainted {number(region.score)}"


def place(region: Region, media: Media) -> str:
    """Where in the picture the middle of a region lies, by thirds."""
    x = (region.box[0] + region.box[2]) / 2 / media.width
    y = (region.box[1] + region.box[3]) / 2 / media.height
    across, down = ("left", "", "right")[min(int(3 * x), 2)], ("top", "", "bottom")[min(int(3 * y), 2)]
    if not (across or down):
        return "in the middle"
    return f"at the {down} {across}" if across and down else f"at the {across or down}"


def shrunk(scale: float) -> tuple[str, ...]:
    """A warning where a picture was looked at smaller than it is."""
    if scale >= 1:
        return ()
    return (f"For inpainted parts the picture was looked at shrunk to {scale:.0%}; small ones may be missed.",)


def crowded(most_in_a_frame: int, limit: int) -> tuple[str, ...]:
    """A warning where a frame has as many faces as are looked at, and may have more."""
    if most_in_a_frame < limit:
        return ()
    return (f"There may be more faces: only the {limit} largest of a frame were looked at.",)


def label_of(score: float | None, verdict: Verdict) -> Label:
    """What one face or frame may be called: by its own score, but never more than all faces together say."""
    whole = of_faces(verdict)
    if score is None or whole is None:
        return Label.INCONCLUSIVE
    lower = score if whole >= verdict.thresholds.manipulated else min(score, whole)
    if lower >= verdict.thresholds.manipulated:
        return Label.MANIPULATED
    return Label.AUTHENTIC if lower <= verdict.thresholds.authentic else Label.INCONCLUSIVE


def worst_face(verdict: Verdict) -> FaceEvidence | None:
    """The judged face with the highest score, in the worst span if there is one."""
    judged = [face for face in verdict.faces if face.score is not None]
    span = verdict.worst_span
    if span is not None:
        times = [frame.time_s for frame in verdict.frames]
        judged = [f for f in judged if (t := times[f.frame]) is not None and span.start_s <= t <= span.end_s] or judged
    return max(judged, key=lambda face: face.score or 0.0, default=None)


def people(verdict: Verdict) -> int:
    """Different people seen: the tracks."""
    return len({face.track for face in verdict.faces})


def _where_looked(verdict: Verdict) -> str:
    if verdict.media.kind == "image":
        return "the picture"
    return f"the {counted(len(verdict.frames), 'frame')} of the {verdict.media.kind} that were looked at"


def _judged(verdict: Verdict) -> str:
    judged = [face for face in verdict.faces if face.score is not None]
    persons = len({face.track for face in judged})
    if verdict.media.kind == "image":
        return "the one face in the picture" if persons == 1 else f"the {persons} faces judged"
    frames = counted(len({face.frame for face in judged}), "frame")
    return f"{frames} with {counted(persons, 'face')}"


def _scored(verdict: Verdict) -> str:
    score, limits = of_faces(verdict) or 0.0, verdict.thresholds
    if verdict.label is Label.MANIPULATED:
        return f"score {number(score)}; {limits.manipulated:.2f} or more counts as manipulated"
    if verdict.label is Label.AUTHENTIC:
        return f"score {number(score)}; {limits.authentic:.2f} or less counts as authentic"
    return f"score {number(score)}, between {limits.authentic:.2f} and {limits.manipulated:.2f}"


def _culprit(verdict: Verdict) -> str:
    """Who, where on the face, and when."""
    face = worst_face(verdict)
    if face is None:
        return "the picture"
    many = people(verdict)
    words = "the face" if many == 1 else f"face {face.track + 1} of {many}"
    spot = part(face.attention) if face.attention else None
    words += f", strongest {spot}" if spot else ""
    span = verdict.worst_span
    if span is not None:
        start, end = moment(verdict, span.start_s), moment(verdict, span.end_s)
        words += f", at {start}" if start == end else f", from {start} to {end}"
    return words


def _strength(score: float, limit: float) -> str:
    return "Very strong" if score * (1 - limit) >= STRONG_ODDS * limit * (1 - score) else "Strong"


def _inpainted(verdict: Verdict) -> str:
    """The reason when a region decides: where it lies, and what the faces say."""
    worst, many, limit = verdict.regions[0], len(verdict.regions), deciding_limit(verdict)
    what = "a part of the picture was" if many == 1 else f"{many} parts of the picture were"
    where = _surest_place(verdict)
    scored = f"score {number(worst.score)}; {limit:.2f} or more counts as manipulated"
    strength, faces = _strength(worst.score, limit), _faces_beside(verdict)
    return f"{strength} evidence that {what} inpainted, {where} ({scored}). {faces} {NOT_PROOF}"


def _faces_beside(verdict: Verdict) -> str:
    score, judged = of_faces(verdict), [face for face in verdict.faces if face.score is not None]
    if score is None:
        return "No face in it could be judged." if verdict.faces else "No face was found."
    one = len(judged) == 1
    who = "The one face in it" if one else f"The {len(judged)} faces judged"
    if score <= verdict.thresholds.authentic:
        return f"{who} {'shows' if one else 'show'} no sign of manipulation (score {number(score)})."
    return f"{who} alone would be inconclusive (score {number(score)})."


def _inpainted_too(verdict: Verdict) -> str:
    if not verdict.regions:
        return ""
    worst, many = verdict.regions[0], len(verdict.regions)
    what = "A part of the picture looks" if many == 1 else f"{many} parts of the picture look"
    return f"{what} inpainted, too, {_surest_place(verdict)} (score {number(worst.score)}). "


def _surest_place(verdict: Verdict) -> str:
    where = place(verdict.regions[0], verdict.media)
    return where if len(verdict.regions) == 1 else f"the surest {where}"


def _nothing_fit(verdict: Verdict) -> str:
    many = people(verdict)
    found = "A face was found" if many == 1 else f"{many} faces were found"
    causes = sorted({cause for face in verdict.faces for cause in face.warnings} - {"too poor to judge"})
    why = f" ({'; '.join(causes)})" if causes else ""
    return f"{found}, but too poor to judge{why}. Look for a larger or sharper copy."


def _cautions(verdict: Verdict) -> Iterator[str]:
    judged = [face for face in verdict.faces if face.score is not None]
    unjudged = len(verdict.faces) - len(judged)
    if judged and unjudged:
        yield f"{unjudged} of {counted(len(verdict.faces), 'face')} found were too poor to judge."
    widest = max((_width_px(face) for face in judged), default=0.0)
    if judged and widest < SMALL_FACE_PX:
        yield f"The largest face is only {widest:.0f} px wide; small faces are judged less reliably."
    shared = set.intersection(*(set(face.warnings) for face in judged)) if judged else set()
    for cause in sorted(shared - {"tiny face"}):  # the size is told above
        yield f"Every face that was judged is affected: {cause}."
    seen = len({face.frame for face in judged})
    if judged and len(verdict.frames) >= 4 * seen:
        yield f"A face could be judged in only {seen} of {len(verdict.frames)} frames."
    if is_heavily_compressed(verdict.media):
        yield "The file is heavily compressed, which hides traces of manipulation and can look like them."


def is_heavily_compressed(media: Media) -> bool:
    """Whether so few bits are left per pixel that fine traces are gone; false where the container does not tell."""
    if media.kind == "video":
        pixels = media.width * media.height * (media.frame_count or 0)
        return pixels > 0 and 8 * media.size_bytes / pixels < HEAVY_VIDEO_BITS_PER_PIXEL
    pixels = media.width * media.height
    is_still = media.kind == "image" and pixels > 0
    return is_still and 8 * media.size_bytes / pixels < HEAVY_BITS_PER_PIXEL.get(media.format, 0.0)


def _width_px(face: FaceEvidence) -> float:
    return min(face.box[2] - face.box[0], face.box[3] - face.box[1])


def finish(verdict: Verdict, *, min_face_px: int) -> Verdict:
    """The verdict with its reason and warnings filled in."""
    return msgspec.structs.replace(verdict, reason=reason(verdict, min_face_px=min_face_px), warnings=warnings(verdict))
