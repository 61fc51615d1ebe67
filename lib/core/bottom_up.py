"""Bottom-up pose estimation: find all joints in a whole image and group them into people."""

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch

from lib.core.backends import Backend
from lib.core.codecs.codec import Outputs
from lib.core.codecs.grouping import Candidates
from lib.core.codecs.tags import SceneTarget
from lib.core.task import Arrays, Task, draw_heatmaps
from lib.dataset.bottom_up import scene_batch
from lib.dataset.loading import Batch
from lib.keypoints.geometry import Crop
from lib.keypoints.poses import Poses
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError

MAX_DRAWN = 8  # images in one grid


class BottomUp(Task):
    """The bottom-up task.

    In evaluation, a batch is one image at one or several scales (``scene_batch``). The outputs are
    heatmaps (1, K, H, W) and tags (1, K, H, W, T), with T tags per joint. An exported file that
    includes decoding also outputs the candidates.

    Args:
        backend: its codec is a ``TagCodec``.
        size: length in pixels to which the shorter side of an image is resized.
        scales: sizes at which an image is processed, relative to ``size``.

    Raises:
        InputError: the backend is a file with decoding, and ``scales`` is not (1,).
    """

    uses_boxes = False
    grid_columns = 4

    def __init__(
        self,
        backend: Backend,
        skeleton: Skeleton,
        size: int,
        scales: Sequence[float],
        autocast: torch.dtype | None,
    ) -> None:
        super().__init__(backend, skeleton, autocast)
        self._size = size
        self._scales = tuple(scales)
        if backend.outputs_are_decoded and self._scales != (1.0,):
            raise InputError(
                "TEST.SCALE_FACTOR: this file includes decoding and supports only [1]; for other "
                "scales, export again with --raw"
            )

    def forward(self, batch: Batch) -> Outputs:
        if self._is_training:
            return self.backend.training_outputs(batch["image"], self._autocast)
        if self.backend.outputs_are_decoded:
            return self.backend.outputs(batch["image0"])
        codec = self.codec
        base_size = tuple(batch["base_size"].flip(0).tolist())  # height, width
        # Heatmaps are averaged over all scales; tags are taken only from one of them.
        is_tagged = batch["is_tagged"].tolist()
        total, tags = None, None
        for number, has_tags in enumerate(is_tagged):
            merged = codec.merge(self.backend.outputs(batch[f"image{number}"]))
            if codec.enlarges_to_input:
                merged = codec.enlarge(merged, base_size)
            elif total is not None:
                merged = codec.enlarge(merged, total.shape[2:])
            total = merged[0] if total is None else total + merged[0]
            if has_tags:
                tags = merged[1]
        return total / len(is_tagged), tags

    def _target(self, batch: Batch) -> list[SceneTarget]:
        masks = [batch[f"mask{number}"] for number in range(len(self.codec.sizes))]
        return self.codec.encode(batch["joints"], batch["visible"], masks)

    def predict(self, outputs: Outputs, batch: Batch) -> Poses:
        heatmaps = outputs[0]
        parts = [Poses.empty(len(self.skeleton))]
        for number, (people, person_scores) in enumerate(self._people(outputs)):
            center, scale = (batch[name][number : number + 1].cpu() for name in ("center", "scale"))
            size = (heatmaps.shape[3], heatmaps.shape[2])
            xy = torch.from_numpy(people[None, :, :, :2].reshape(1, -1, 2))
            keypoints = Crop(size).to_image(xy, center, scale).reshape(*people.shape[:2], 2).numpy()
            count = len(people)
            parts.append(
                Poses(
                    image=np.full(count, int(batch["image_index"][number])),
                    keypoints=keypoints.astype(np.float32),
                    scores=people[:, :, 2],
                    score=person_scores.astype(np.float32),
                    box=_boxes(keypoints, people[:, :, 2]),
                    box_score=np.ones(count, np.float32),
                    row=np.full(count, -1),
                )
            )
        return Poses.concatenate(parts)

    def _people(self, outputs: Outputs) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the people (P, K, 3 + T) and person scores (P,) of each image.

        For each joint, there are x and y in heatmap pixels, the score, and T tags.
        """
        merged, candidates = self.codec.merge(outputs), self.codec.candidates(outputs)
        heatmaps, tags = (part.float().cpu().numpy() for part in merged)
        for number in range(len(heatmaps)):
            image_candidates = Candidates(*(part[number : number + 1] for part in candidates))
            yield self.codec.grouping.group(heatmaps[number], tags[number], image_candidates)

    @torch.no_grad()
    def draw(self, batch: Batch, outputs: Outputs, kinds: Collection[str]) -> dict[str, np.ndarray]:
        if "image" in batch:
            images = batch["image"][:MAX_DRAWN]
        else:  # in evaluation, draw on the image whose tags are used
            images = batch[f"image{int(batch['is_tagged'].int().argmax())}"]
        images = images.permute(0, 2, 3, 1).cpu().numpy()
        merged = self.codec.merge(tuple(output[:MAX_DRAWN].float() for output in outputs))
        zoom = images.shape[2] / merged[0].shape[3]
        people = [found for found, _ in self._people(merged)]
        visible = [found[:, :, 2] > 0 for found in people]
        predicted = self._draw_people(images, [p[:, :, :2] * zoom for p in people], visible)
        annotated: list[np.ndarray] = []
        if "joints" in batch:
            zoom = images.shape[2] / self.codec.sizes[0][0]
            joints = batch["joints"][: len(images), 0].cpu().numpy() * zoom
            visible = batch["visible"][: len(images)].cpu().numpy() > 0
            annotated = self._draw_people(images, joints, visible)
        drawn = self._grids(annotated, predicted, kinds)
        if "hm_gt" in kinds and annotated:
            drawn["hm_gt"] = draw_heatmaps(images, self._target(batch)[-1].heatmaps)
        if "hm_pred" in kinds:
            drawn["hm_pred"] = draw_heatmaps(images, merged[0])
        return drawn

    def batches(
        self, images: Arrays, boxes: Arrays, box_scores: Arrays, batch_size: int
    ) -> Iterator[Batch]:
        for index, image in enumerate(images):
            yield scene_batch(image, index, self._size, self._scales, f"images[{index}]")


def _boxes(keypoints: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the boxes (P, 4) around the keypoints (P, K, 2) with a score above 0."""
    found = (scores > 0)[..., None]
    low = np.where(found, keypoints, np.inf).min(1, initial=np.inf)
    high = np.where(found, keypoints, -np.inf).max(1, initial=-np.inf)
    return np.concatenate([low, high - low], 1).astype(np.float32)
