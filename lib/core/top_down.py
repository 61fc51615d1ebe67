"""Top-down pose estimation: the network predicts one person in a crop around their box."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch

from lib.core.backends import Backend
from lib.core.codecs.codec import Outputs
from lib.core.task import Arrays, Task, draw_heatmaps
from lib.dataset.loading import Batch
from lib.dataset.top_down import crop_image
from lib.keypoints.geometry import Crop, box_to_center_scale
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton

MAX_DRAWN = 32  # crops in one grid


class TopDown(Task):
    """The top-down task. ``crop`` defines the size and transform of the network's crops."""

    uses_boxes = True
    grid_columns = 8

    def __init__(
        self, backend: Backend, skeleton: Skeleton, crop: Crop, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__(backend, skeleton, autocast)
        self.crop = crop

    def forward(self, batch: Batch) -> Outputs:
        if self._is_training:
            return self.backend.training_outputs(batch["image"], self._autocast)
        return self.backend.outputs(batch["image"])

    def _target(self, batch: Batch) -> Any:
        return self.codec.encode(batch["joints"], batch["visible"])

    def predict(self, outputs: Outputs, batch: Batch) -> Poses:
        keypoints, scores = self.backend.decode(outputs)
        return Poses(
            image=batch["image_index"],
            keypoints=self.crop.to_image(keypoints, batch["center"], batch["scale"]),
            scores=scores,
            score=scores.mean(dim=1),
            box=batch["box"],
            box_score=batch["box_score"],
            row=batch["index"],
        )

    @torch.no_grad()
    def draw(self, batch: Batch, outputs: Outputs, kinds: Collection[str]) -> dict[str, np.ndarray]:
        images = batch["image"][:MAX_DRAWN].permute(0, 2, 3, 1).cpu().numpy()
        joints = batch["joints"][:MAX_DRAWN].cpu().numpy()
        is_annotated = batch["visible"][:MAX_DRAWN].cpu().numpy() > 0
        keypoints = self.backend.decode(outputs)[0][:MAX_DRAWN].cpu().numpy()
        # Only annotated joints are drawn, as in the HRNet repository, so that annotations and
        # predictions show the same joints. If no joint is annotated, all are drawn.
        is_drawn = is_annotated if is_annotated.any() else np.ones_like(is_annotated)
        drawn = self._grids(
            self._draw_people(images, joints[:, None], is_annotated[:, None]),
            self._draw_people(images, keypoints[:, None], is_drawn[:, None]),
            kinds,
        )
        if "hm_gt" in kinds:
            drawn["hm_gt"] = draw_heatmaps(images, self._target(batch).heatmaps)
        if "hm_pred" in kinds and not self.backend.outputs_are_decoded:
            drawn["hm_pred"] = draw_heatmaps(images, self.codec.maps(outputs))
        return drawn

    def batches(
        self, images: Arrays, boxes: Arrays, box_scores: Arrays, batch_size: int
    ) -> Iterator[Batch]:
        counts = [len(image_boxes) for image_boxes in boxes]
        image_index = np.repeat(np.arange(len(images)), counts)
        box = np.concatenate([*boxes, np.zeros((0, 4))])
        score = np.concatenate([*box_scores, np.zeros(0)]).astype(np.float32)
        center, scale = box_to_center_scale(box, self.crop.aspect_ratio)
        for start in range(0, len(box), batch_size):
            part = slice(start, start + batch_size)
            crops = [
                crop_image(images[i], self.crop.matrix(c, s), self.crop.size)
                for i, c, s in zip(image_index[part], center[part], scale[part], strict=True)
            ]
            arrays = {
                "image": np.stack(crops),
                "center": center[part],
                "scale": scale[part],
                "box": box[part].astype(np.float32),
                "box_score": score[part],
                "index": np.full(len(crops), -1),
                "image_index": image_index[part],
            }
            yield {name: torch.from_numpy(array) for name, array in arrays.items()}
