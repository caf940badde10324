# SPDX-License-Identifier: BSD-3-Clause
"""TV-L1 flow of the first pair of frames of a video, as a picture.

python examples/flow_of_a_video.py VIDEO OUT.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2

import twostream_ext as ts


def main(video: Path, out: Path) -> None:
    frames = ts.media.read_video(video, grey=True)
    flow = ts.flow.estimate_flow(next(frames), next(frames), method="tvl1")
    cv2.imwrite(str(out), ts.flow.flow_to_colour(flow)[..., ::-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
