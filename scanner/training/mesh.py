"""Two face shapes in, one face warped onto the other triangle by triangle out.

One reason: an affine fit moves a face as a whole, a mesh lets every part of it follow, which leaves other traces.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from scanner.training.masks import Mask
from scanner.training.portraits import Pixels, Points, mean_shape, region

Triangles = NDArray[np.int32]

# Every landmark of these parts, and the outline of the face: about 80 points, 8 px apart and more.
_PARTS = ("oval", "inner", "lower", "left_eye", "right_eye", "left_brow", "right_brow", "nose", "mouth")
_NEAREST = 0.012  # of the canvas: closer points make slivers


@cache
def corners() -> tuple[int, ...]:
    """The landmarks that the mesh is made of: those of the face's parts, the crowded ones left out."""
    mean, unique = mean_shape(), set[int]()
    rows = {tuple(point): index for index, point in reversed(list(enumerate(mean.tolist())))}
    for part in _PARTS:
        unique |= {rows[tuple(point)] for point in region(mean, part).tolist()}
    kept: list[int] = []
    for index in sorted(unique):
        if all(np.hypot(*(mean[index] - mean[other])) > _NEAREST for other in kept):
            kept.append(index)
    return tuple(kept)


def triangulate(points: Points, size: int) -> Triangles:
    """The Delaunay triangles (n, 3) of points (m, 2) inside a size x size canvas, as indices into them."""
    inside = np.clip(points, 0, size - 1).astype(np.float32)
    plane = cv2.Subdiv2D((0, 0, size, size))
    number: dict[tuple[float, float], int] = {}
    for index, (x, y) in enumerate(inside.tolist()):
        plane.insert((x, y))
        number.setdefault((x, y), index)
    found = [
        [number[(x, y)] for x, y in triangle]
        for triangle in np.array(plane.getTriangleList(), np.float32).reshape(-1, 3, 2).tolist()
        if all((x, y) in number for x, y in triangle)  # not the corners of the plane itself
    ]
    return np.array(found, np.int32).reshape(-1, 3)


def warp(picture: Pixels, source: Points, target: Points) -> tuple[Pixels, Mask]:
    """The picture with the points `source` moved to `target`, both (m, 2), and where the mesh lies (hard).

    Between the points it is piecewise affine; outside the mesh it is black.
    """
    size = picture.shape[0]
    triangles = triangulate(target, size)
    label = np.full((size, size), -1, np.int32)
    matrices = np.zeros((len(triangles) + 1, 2, 3), np.float32)  # the last one, -1, is for outside
    for number, triangle in enumerate(triangles):
        cv2.fillConvexPoly(label, target[triangle].round().astype(np.int32), number)
        matrices[number] = cv2.getAffineTransform(target[triangle], source[triangle])
    x, y = np.meshgrid(np.arange(size, dtype=np.float32), np.arange(size, dtype=np.float32))
    there = np.einsum("hwij,jhw->hwi", matrices[label], np.stack([x, y, np.ones_like(x)]))
    there[label < 0] = -1e4
    out = cv2.remap(picture, there, None, cv2.INTER_CUBIC)  # type: ignore[call-overload] # stubs: no None
    return np.asarray(out, np.uint8), (label >= 0).astype(np.float32)
