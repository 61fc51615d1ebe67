"""Time the grouping of a bottom-up network's outputs into people."""

import numpy as np
import torch

from benchmarks.measure import Row, fastest
from lib.core.codecs.grouping import Grouping, find_candidates, joint_order
from lib.keypoints.skeletons import COCO

SIZE = 512  # height and width of the heatmaps, in pixels
MIN_SCORE = 0.2  # leftover candidates form people with lower scores, which do not count


def run(people: tuple[int, ...] = (1, 10, 30), repeats: int = 5) -> list[Row]:
    """Time the step from heatmaps and tags to people.

    The reference only finds the keypoint candidates, which are maxima of the heatmaps.
    """
    rows = []
    grouping = Grouping(joint_order(COCO.names))
    for count in people:
        heatmaps, tags = random_outputs(count)

        def candidates(heatmaps=heatmaps, tags=tags):
            return find_candidates(heatmaps, tags, grouping.max_people, grouping.kernel)

        def group(heatmaps=heatmaps, tags=tags, candidates=candidates):
            return grouping.group(heatmaps[0].numpy(), tags[0].numpy(), candidates())

        value, reference = (1e3 * seconds for seconds in fastest([group, candidates], repeats))
        remark = "reference: finding candidates alone"
        found = int((group()[1] > MIN_SCORE).sum())
        is_complete = abs(found - count) <= count / 10  # in a crowd, some people overlap
        rows.append(Row(f"grouping of {count} people", "ms", value, reference, remark, is_complete))
    return rows


def random_outputs(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random heatmaps (1, 17, H, W) and tags (1, 17, H, W, 1) of ``count`` people.

    The people stand in a grid of five rows. A tenth of the joints are missing. Tags differ between
    people.
    """
    rng = np.random.default_rng(seed)
    heatmaps = rng.uniform(0, 0.05, (17, SIZE, SIZE)).astype(np.float32)
    tags = rng.normal(0, 0.1, (17, SIZE, SIZE)).astype(np.float32)
    columns = -(-count // 5)
    y, x = np.mgrid[-8:9, -8:9]
    peak = np.exp(-(x**2 + y**2) / 18).astype(np.float32)
    for person in range(count):
        left, top = person % columns * (SIZE // columns), person // columns * (SIZE // 5)
        for joint in range(17):
            row, column = top + rng.integers(10, 90), left + rng.integers(10, SIZE // columns - 10)
            window = np.s_[joint, row - 8 : row + 9, column - 8 : column + 9]
            tags[window] = 2 * person + rng.normal(0, 0.05)
            if rng.random() > 0.1:
                heatmaps[window] = np.maximum(heatmaps[window], peak * rng.uniform(0.4, 1))
    return torch.from_numpy(heatmaps)[None], torch.from_numpy(tags)[None, ..., None]
