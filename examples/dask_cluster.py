# SPDX-License-Identifier: BSD-3-Clause
"""Flow of a folder of videos by a Dask cluster: one that is started on this machine, or yours by its address.

python examples/dask_cluster.py VIDEOS FLOW [tcp://head:8786]

The workers see VIDEOS and FLOW under the same paths, and have this package installed. A video whose worker died is done
again by another; given again, the command does what is missing.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster

import twostream_ext as ts


def main(videos: Path, flow: Path, scheduler: str | None = None, **settings: Any) -> None:
    """settings: as of `ts.extract`."""
    cluster = nullcontext(scheduler) if scheduler else LocalCluster(threads_per_worker=1, dashboard_address=None)
    with cluster as place, Client(place) as client:
        workers = client.nthreads()
        print(f"{len(workers)} workers, {sum(workers.values())} threads")
        # A task of its own for each video, even of two that have the same bytes.
        store = ts.extract(videos, flow, executor=client.get_executor(pure=False), **settings)
    print(f"{len(store)} videos in {flow}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
