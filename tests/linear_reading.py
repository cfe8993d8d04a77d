"""`decoding.video` made to read every frame, as a plain reader would: what bench_scan.py compares keyframes with.

Runs in a jail of its own, so the change reaches no other one.
"""

from scanner.decoding import video


def _every_frame(index, _pixels, wanted, _notes):
    count = min(wanted.max_frames, len(index.times))
    times = [index.times[place] for place in video._centres(len(index.times), count)]
    return video._Plan(times, keyframes_only=False)


video._plan = _every_frame
prepare, decode = video.prepare, video.decode
