# SPDX-License-Identifier: BSD-3-Clause
"""From onset to apex: the frame whose flow from the first one strains the face most, as a picture of u, v and strain.

python examples/apex.py VIDEO OUT.png          (VIDEO: a file, or a folder of numbered images, as CASME II has them)
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

import twostream_ext as ts


def main(video: Path, out: Path) -> None:
    onset, *others = ts.media.read_video(video, grey=True)
    fields = [ts.flow.estimate_flow(onset, frame, method="tvl1") for frame in others]
    means = [float(ts.flow.strain(field).magnitude.mean()) for field in fields]
    apex = int(np.argmax(means))
    print(f"apex: frame {apex + 1} of {len(fields) + 1}, mean strain {means[apex]:.4f}")
    strain = ts.flow.strain(fields[apex]).magnitude
    u, v = ts.flow.flow_to_planes(fields[apex])
    cv2.imwrite(str(out), np.hstack([u, v, np.rint(255 * strain / max(1e-6, strain.max())).astype(np.uint8)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
