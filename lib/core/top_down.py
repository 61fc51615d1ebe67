"""Top-down pose estimation: the network predicts one person in a crop around their box."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from yacs.config import CfgNode

from lib.config import skeleton_of
from lib.core.backends import Backend
from lib.core.codecs.codec import Outputs
from lib.core.task import Losses, Task
from lib.dataset import crop_of
from lib.dataset.loading import Batch
from lib.dataset.top_down import crop_image
from lib.keypoints.geometry import Crop, box_to_center_scale
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton
from lib.utils.drawing import draw_person, heatmap_rows, image_grid

MAX_DRAWN = 32  # crops in one grid
MAX_PAIRS = 8  # pairs of annotated and predicted crops in one grid
COLUMNS = 8


class TopDown(Task):
    """The top-down task.

    Args:
        backend: runs the network.
        crop: size and transform of the network's crops.
        autocast: train in this type where PyTorch considers it safe; None: in float32.
    """

    def __init__(
        self, backend: Backend, skeleton: Skeleton, crop: Crop, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__(backend, skeleton, autocast)
        self.crop = crop

    def forward(self, batch: Batch) -> Outputs:
        if self._is_training:
            return self.backend.training_outputs(batch["image"], self._autocast)
        return self.backend.outputs(batch["image"])

    def loss(self, outputs: Outputs, batch: Batch) -> Losses | None:
        if self.backend.decodes:
            return None
        target = self.codec.encode(batch["joints"], batch["visible"])
        total = self.codec.loss(outputs, target)
        with torch.no_grad():
            accuracy, joints = self.codec.accuracy(outputs, target)
        return Losses(total, accuracy, joints)

    def predict(self, outputs: Outputs, batch: Batch) -> Poses:
        keypoints, scores = self.backend.decode(outputs)
        return Poses(
            image=batch["image_index"],
            keypoints=self.crop.to_image(keypoints, batch["center"], batch["scale"]),
            scores=scores,
            score=scores.mean(dim=1),
            box=batch["box"],
            box_score=batch["score"],
            row=batch["index"],
        )

    @torch.no_grad()
    def draw(self, batch: Batch, outputs: Outputs, kinds: Collection[str]) -> dict[str, np.ndarray]:
        images = batch["image"][:MAX_DRAWN].permute(0, 2, 3, 1).cpu().numpy()
        joints = batch["joints"][:MAX_DRAWN].cpu().numpy()
        is_visible = batch["visible"][:MAX_DRAWN].cpu().numpy() > 0
        keypoints = self.backend.decode(outputs)[0][:MAX_DRAWN].cpu().numpy()
        annotated = self._skeletons(images, joints, is_visible)
        # Only annotated joints are drawn, as in the HRNet repository, so that both images show the
        # same joints. If no joint is annotated, all are drawn.
        is_drawn = is_visible if is_visible.any() else np.ones_like(is_visible)
        predicted = self._skeletons(images, keypoints, is_drawn)
        drawn: dict[str, np.ndarray] = {}
        if "gt" in kinds:
            drawn["gt"] = image_grid(annotated, COLUMNS)
        if "pred" in kinds:
            drawn["pred"] = image_grid(predicted, COLUMNS)
        if "hm_gt" in kinds:
            target = self.codec.encode(batch["joints"], batch["visible"])
            drawn["hm_gt"] = _heatmaps(images, target.heatmaps)
        if "hm_pred" in kinds and not self.backend.decodes:
            drawn["hm_pred"] = _heatmaps(images, self.codec.maps(outputs))
        if "gt_pred" in kinds:
            pairs = [image for pair in zip(annotated, predicted, strict=True) for image in pair]
            drawn["gt_pred"] = image_grid(pairs[: 2 * MAX_PAIRS], COLUMNS)
        return drawn

    def _skeletons(
        self, images: np.ndarray, keypoints: np.ndarray, is_drawn: np.ndarray
    ) -> list[np.ndarray]:
        limbs, pairs = self.skeleton.limbs, self.skeleton.flip_pairs
        drawn = [np.ascontiguousarray(image).copy() for image in images]
        for image, person, flags in zip(drawn, keypoints, is_drawn, strict=True):
            draw_person(image, person, flags, limbs, pairs)
        return drawn

    def batches(
        self,
        images: Sequence[np.ndarray],
        boxes: Sequence[np.ndarray],
        box_scores: Sequence[np.ndarray],
        batch_size: int,
    ) -> Iterator[Batch]:
        counts = [len(one) for one in boxes]
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
                "score": score[part],
                "index": np.full(len(crops), -1),
                "image_index": image_index[part],
            }
            yield {name: torch.from_numpy(array) for name, array in arrays.items()}


def _heatmaps(images: np.ndarray, maps: torch.Tensor) -> np.ndarray:
    return heatmap_rows(images, maps[:MAX_DRAWN].float().cpu().numpy())


def build_top_down(cfg: CfgNode, backend: Backend, autocast: torch.dtype | None = None) -> TopDown:
    """Build the top-down task of an experiment; ``backend`` runs its network."""
    return TopDown(backend, skeleton_of(cfg), crop_of(cfg), autocast)
