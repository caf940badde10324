# SPDX-License-Identifier: BSD-3-Clause
"""Flow as a picture: colours, arrows, planes, and all of them beside their frame."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from twostream_ext.flow.camera import without_camera
from twostream_ext.media import Picture

_LABEL = 20  # pixels, height of the line above a panel
_TEXT = 0.42  # size of its letters
_PANEL = 224  # pixels, the height to which small panels are enlarged
_WHEEL = 48  # pixels, side of the colour wheel in a corner
_ARROWS = 22  # pixels between arrows


def flow_to_colour(flow: npt.ArrayLike, *, maximum: float | None = None) -> Picture:
    """Colour wheel of a flow field: uint8 RGB [H, W, 3].

    flow: [H, W, 2], (x, y) in pixels. The direction gives the hue (right red, down yellow-green,
    left cyan, up violet) and the length the saturation: white stands still, full colour moves by
    `maximum` pixels or more. maximum: by default the longest displacement of this field.

    ValueError if the shape is another or `maximum` is not positive.
    """
    field = _check("flow_to_colour", flow, maximum)
    length, degrees = cv2.cartToPolar(
        np.ascontiguousarray(field[..., 0]),
        np.ascontiguousarray(field[..., 1]),
        angleInDegrees=True,
    )
    longest = maximum if maximum is not None else float(length.max(initial=0)) or 1.0
    saturation = np.minimum(length / longest, 1)
    hsv = np.stack([np.mod(degrees, 360), saturation, np.ones_like(length)], axis=2)
    rgb = cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2RGB)
    return np.rint(rgb * 255).astype(np.uint8)


def colour_wheel(side: int = 96) -> Picture:
    """The key to `flow_to_colour`: uint8 RGB [side, side, 3], still in the middle, `maximum` at the rim."""
    reach = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = np.meshgrid(reach, reach)
    wheel = flow_to_colour(np.stack([x, y], axis=2), maximum=1.0)
    wheel[np.hypot(x, y) > 1] = 255
    return wheel


def flow_to_planes(flow: npt.ArrayLike, *, maximum: float | None = None) -> tuple[Picture, Picture]:
    """The x and the y plane of a flow field as grey pictures, uint8 [H, W] each.

    flow: [H, W, 2], (x, y) in pixels. Middle grey (128) stands still, white moves by `maximum` pixels or more to the
    right or down, black to the left or up. maximum: by default the largest component of this field.

    ValueError if the shape is another or `maximum` is not positive.
    """
    field = _check("flow_to_planes", flow, maximum)
    largest = maximum if maximum is not None else float(np.abs(field).max(initial=0)) or 1.0
    grey = np.rint(127.5 + 127.5 * np.clip(field / largest, -1, 1)).astype(np.uint8)
    return np.ascontiguousarray(grey[..., 0]), np.ascontiguousarray(grey[..., 1])


def draw_arrows(
    picture: Picture, flow: npt.ArrayLike, *, spacing: int = _ARROWS, maximum: float | None = None
) -> Picture:
    """Arrows over a picture, every `spacing` pixels, uint8 RGB [H, W, 3].

    picture: uint8 RGB [H, W, 3], usually the frame that the field starts from; flow: [H, W, 2], (x, y) in pixels. An
    arrow points where its pixel goes; a displacement of `maximum` pixels, by default the longest of this field, is
    drawn `spacing` pixels long, longer ones are cut to that, and those shorter than a seventh of it are left out.

    ValueError if the shapes are others or do not agree, or `maximum` is not positive.
    """
    field = _check("draw_arrows", flow, maximum)
    if picture.shape != (*field.shape[:2], 3):
        raise ValueError(f"draw_arrows: picture is {list(picture.shape)}, expected {[*field.shape[:2], 3]}")
    drawn = picture.copy()
    lengths = np.hypot(field[..., 0], field[..., 1])
    longest = maximum if maximum is not None else float(lengths.max(initial=0)) or 1.0
    half = spacing // 2
    for y in range(half, field.shape[0], spacing):
        for x in range(half, field.shape[1], spacing):
            length = float(lengths[y, x])
            if length < longest / 7:
                continue
            reach = field[y, x] * (spacing / max(longest, length))
            end = (round(x + float(reach[0])), round(y + float(reach[1])))
            cv2.arrowedLine(drawn, (x, y), end, (0, 0, 0), 3, cv2.LINE_AA, tipLength=0.35)
            cv2.arrowedLine(drawn, (x, y), end, (255, 230, 40), 1, cv2.LINE_AA, tipLength=0.35)
    return drawn


def draw_flow(
    frame: Picture, flow: npt.ArrayLike, *, number: int | None = None, camera: npt.ArrayLike | None = None
) -> Picture:
    """A frame with arrows, its flow in colours, and its x and y plane, in one labelled picture, uint8 RGB.

    frame: uint8 RGB [H, W, 3]; flow: [H, W, 2] from this frame to the next, (x, y) in pixels. number: of the frame, for
    the label. The longest displacements, 1 % of them, are cut: they are often wrong. camera: [2, 3], the camera's
    motion in the field (see `without_camera`); a third row shows it, and what is left of the flow without it.

    ValueError if the shapes are others or do not agree.
    """
    field = _check("draw_flow", flow, None)
    if frame.shape != (*field.shape[:2], 3):
        raise ValueError(f"draw_flow: frame is {list(frame.shape)}, expected {[*field.shape[:2], 3]}")
    longest = typical_maximum(field)
    factor = max(1, min(round(_PANEL / field.shape[0]), 3 * _PANEL // field.shape[1]))
    large = _enlarge(frame, factor)
    # The arrows are drawn on the enlarged frame, or they would be coarse.
    arrows = draw_arrows(
        large, _enlarge(field, factor), spacing=_ARROWS * max(1, large.shape[0] // 256), maximum=longest
    )
    colours = with_wheel(_enlarge(flow_to_colour(field, maximum=longest), factor))
    planes = [np.repeat(_enlarge(plane, factor)[..., None], 3, 2) for plane in flow_to_planes(field, maximum=longest)]
    pixels = f"{longest:.3g} px"
    rows = [
        (("frame" if number is None else f"frame {number}", arrows), (f"flow, rim of the wheel: {pixels}", colours)),
        ((f"x, white: {pixels} right", planes[0]), (f"y, white: {pixels} down", planes[1])),
    ]
    if camera is not None:
        objects = without_camera(field, camera)
        moved, still = (_enlarge(flow_to_colour(part, maximum=longest), factor) for part in (field - objects, objects))
        rows.append((("the camera's motion", moved), ("flow without it", still)))
    return np.vstack([np.hstack([_label(text, panel) for text, panel in row]) for row in rows])


def side_by_side(
    frame: Picture, flow: npt.ArrayLike, *, maximum: float, camera: npt.ArrayLike | None = None
) -> Picture:
    """A frame and, on its right, its flow in colours with their key, uint8 RGB [H, 2W, 3]; see `flow_to_colour`.

    camera: [2, 3], the camera's motion in the field; on the right of all, [H, 3W, 3], is the flow without it.
    """
    fields = [flow] if camera is None else [flow, without_camera(flow, camera)]
    colours = [flow_to_colour(each, maximum=maximum) for each in fields]
    return np.hstack([frame, *colours[:-1], with_wheel(colours[-1])])


def typical_maximum(flow: npt.ArrayLike) -> float:
    """The length that 99 % of displacements, [..., 2], do not pass: a scale that a few wrong ones do not spoil."""
    field = np.asarray(flow, dtype=np.float32)
    return float(np.percentile(np.hypot(field[..., 0], field[..., 1]), 99)) or 1.0


def with_wheel(picture: Picture) -> Picture:
    """The colour wheel in the lower right corner, in a thin frame, of pictures that have room for it."""
    height, width = picture.shape[:2]
    side = min(_WHEEL, height // 3, width // 3)
    if side < 12:
        return picture
    drawn = picture.copy()
    drawn[height - side - 3 : height - 1, width - side - 3 : width - 1] = 90
    drawn[height - side - 2 : height - 2, width - side - 2 : width - 2] = colour_wheel(side)
    return drawn


def _check(caller: str, flow: npt.ArrayLike, maximum: float | None) -> npt.NDArray[np.float32]:
    field = np.asarray(flow, dtype=np.float32)
    if field.ndim != 3 or field.shape[2] != 2:
        raise ValueError(f"{caller}: flow is {list(field.shape)}, expected [H, W, 2]")
    if maximum is not None and not maximum > 0:
        raise ValueError(f"{caller}: maximum is {maximum}, expected a positive number")
    return field


def _enlarge(picture: npt.NDArray, factor: int) -> npt.NDArray:  # type: ignore[type-arg]
    return np.repeat(np.repeat(picture, factor, axis=0), factor, axis=1)


def _label(text: str, panel: Picture) -> Picture:
    canvas = np.full((panel.shape[0] + _LABEL + 2, panel.shape[1] + 2, 3), 255, np.uint8)
    canvas[_LABEL : _LABEL + panel.shape[0], 1:-1] = panel
    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, _TEXT, 1)[0][0]
    size = min(_TEXT, _TEXT * (panel.shape[1] - 8) / max(1, width))  # smaller letters where the panel is narrow
    cv2.putText(canvas, text, (4, _LABEL - 6), cv2.FONT_HERSHEY_SIMPLEX, size, (30, 30, 30), 1, cv2.LINE_AA)
    return canvas
