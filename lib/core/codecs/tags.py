"""Heatmaps and tags of all people in an image (associative embedding).

Newell, Huang, Deng: Associative Embedding: End-to-End Learning for Joint Detection and Grouping.
NIPS 2017. HigherHRNet: Cheng et al.: HigherHRNet: Scale-Aware Representation Learning for Bottom-Up
Human Pose Estimation. CVPR 2020. Numerically equivalent to lib/dataset/target_generators,
lib/core/loss.py, lib/core/inference.py and lib/core/group.py of
HRNet/HigherHRNet-Human-Pose-Estimation.

The first output of a network is (N, 2K, H, W): heatmaps and tags. HigherHRNet's second output is
(N, K, 2H, 2W): heatmaps at twice the resolution. ``merge`` combines them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from yacs.config import CfgNode

from lib.core.codecs.codec import Outputs, RawOutputs, as_outputs, permute_joints
from lib.core.codecs.grouping import Candidates, Grouping, find_candidates, joint_order
from lib.dataset import output_sizes
from lib.keypoints.geometry import flip_permutation
from lib.keypoints.skeletons import Skeleton
from lib.utils.errors import InputError


class SceneTarget(NamedTuple):
    """Target of one output.

    heatmaps: (N, K, H, W).
    mask: (N, H, W), 0 where the heatmap loss is ignored.
    joints: (N, P, K, 2), x, y in heatmap pixels.
    visible: (N, P, K), 1 where a joint is annotated and inside the heatmap.
    """

    heatmaps: Tensor
    mask: Tensor
    joints: Tensor
    visible: Tensor


@dataclass(eq=False)
class TagCodec:
    """Codec with heatmaps, which have a Gaussian for each joint of each person, and tag maps.

    It is not a subclass of ``Codec``, because it cannot decode keypoints on its own: ``grouping``
    turns candidates into people.

    Attributes:
        sizes: (width, height) of each output in training, from coarse to fine.
        sigma: standard deviation of the Gaussians in pixels of each output.
        heatmap_factors, push_factors, pull_factors: loss weights of each output.
        is_hinge: use the hinge form of the push loss instead of the exponential one.
        max_tagged: maximum number of people per image whose tags are trained.
        enlarges_to_input: resize outputs to the size of the network's input before grouping.
    """

    sizes: tuple[tuple[int, int], ...]
    sigma: float
    flip_pairs: tuple[tuple[int, int], ...]
    grouping: Grouping
    heatmap_factors: Sequence[float] = (1.0, 1.0)
    push_factors: Sequence[float] = (0.001, 0.001)
    pull_factors: Sequence[float] = (0.001, 0.001)
    is_hinge: bool = False
    max_tagged: int = 30
    enlarges_to_input: bool = True

    def encode(self, joints: Tensor, visible: Tensor, masks: Sequence[Tensor]) -> list[SceneTarget]:
        """Return the target of each output.

        Args:
            joints: (N, S, P, K, 2), in pixels of each of the S outputs.
            visible: (N, P, K), 1 where a joint is annotated.
            masks: a mask (N, H, W) for each output, 0 where the heatmap loss is ignored.
        """
        targets = []
        for index, (size, mask) in enumerate(zip(self.sizes, masks, strict=True)):
            positions = joints[:, index]
            x, y = positions.trunc().long().unbind(-1)
            is_inside = (visible > 0) & (x >= 0) & (y >= 0) & (x < size[0]) & (y < size[1])
            heatmaps = scene_heatmaps(positions, is_inside, size, self.sigma)
            targets.append(SceneTarget(heatmaps, mask, positions, is_inside.float()))
        return targets

    def loss(self, outputs: RawOutputs, targets: Sequence[SceneTarget]) -> Tensor:
        """Return the sum of heatmap, push and pull losses of all outputs."""
        total = torch.zeros((), device=targets[0].mask.device)
        for index, (output, target) in enumerate(zip(as_outputs(outputs), targets, strict=True)):
            num_joints = target.heatmaps.shape[1]
            if output.shape[2:] != target.heatmaps.shape[2:]:
                found, size = list(output.shape[3:1:-1]), list(self.sizes[index])
                raise InputError(
                    f"MODEL.HEATMAP_SIZE: output {index} of the network is {found}, but the target "
                    f"is {size}"
                )
            heatmap_loss = masked_mse(output[:, :num_joints], target.heatmaps, target.mask).mean()
            total = total + self.heatmap_factors[index] * heatmap_loss
            if output.shape[1] > num_joints:
                people = (part[:, : self.max_tagged] for part in target[2:])
                tagged = SceneTarget(*target[:2], *people)
                push, pull = tag_losses(output[:, num_joints:], tagged, self.is_hinge)
                total = total + self.push_factors[index] * push.mean()
                total = total + self.pull_factors[index] * pull.mean()
        return total

    def accuracy(
        self, outputs: RawOutputs, targets: Sequence[SceneTarget]
    ) -> tuple[Tensor, Tensor]:
        """Return the share of visible joints that are detected, and the number of visible joints.

        A joint is detected if the first output exceeds the detection threshold at its position.
        """
        target = targets[0]
        heatmaps = as_outputs(outputs)[0][:, : target.heatmaps.shape[1]]
        is_visible = target.visible > 0
        found = read_maps(heatmaps, target.joints) > self.grouping.detection_threshold
        count = is_visible.sum().float()
        return (found & is_visible).sum() / count.clamp(min=1), count

    def flip(self, outputs: RawOutputs) -> Outputs:
        """Flip back the outputs of mirrored images, and swap left and right joints."""
        order = flip_permutation(self.num_joints, self.flip_pairs)
        order += [self.num_joints + joint for joint in order]  # tags follow the heatmaps
        return tuple(
            permute_joints(output.flip(3), order[: output.shape[1]])
            for output in as_outputs(outputs)
        )

    @property
    def num_joints(self) -> int:
        return len(self.grouping.joint_order)

    def average(self, outputs: RawOutputs, flipped: RawOutputs) -> Outputs:
        """Merge ``outputs`` and ``flipped``, average their heatmaps and concatenate their tags."""
        (heatmaps, tags), (other, other_tags) = self.merge(outputs), self.merge(flipped)
        return (heatmaps + other) / 2, torch.cat([tags, other_tags], dim=4)

    def merge(self, outputs: RawOutputs) -> Outputs:
        """Combine the outputs of a network.

        Returns:
            Heatmaps (N, K, H, W), the mean over the outputs at the size of the finest output, and
            tags (N, K, H, W, 1). If ``outputs`` are already merged, their heatmaps and tags.
        """
        outputs = as_outputs(outputs)
        if is_merged(outputs):
            return outputs[:2]
        size = outputs[-1].shape[2:]
        resized = [resize(output, size) for output in outputs]
        count = self.num_joints
        heatmaps = sum(output[:, :count] for output in resized) / len(resized)
        return heatmaps, resized[0][:, count:].unsqueeze(4)

    def enlarge(self, merged: Outputs, size: tuple[int, int]) -> Outputs:
        """Resize merged heatmaps and tags to ``size`` (height, width)."""
        heatmaps, tags = merged
        resized = [resize(tag, size) for tag in tags.unbind(4)]
        return resize(heatmaps, size), torch.stack(resized, dim=4)

    def candidates(self, outputs: Outputs) -> Candidates:
        """Return the peaks of the heatmaps; outputs of an exported file already contain them."""
        if is_merged(outputs) and len(outputs) > 2:
            return Candidates(*outputs[2:])
        heatmaps, tags = self.merge(outputs)
        return find_candidates(heatmaps, tags, self.grouping.max_people, self.grouping.kernel)


def is_merged(outputs: Outputs) -> bool:
    """Return True for merged heatmaps and tags, False for the raw outputs of a network."""
    return len(outputs) > 1 and outputs[1].dim() == 5


def resize(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize (N, C, H, W) to ``size`` (height, width) bilinearly."""
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    return functional.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


def scene_heatmaps(
    joints: Tensor, is_visible: Tensor, size: tuple[int, int], sigma: float
) -> Tensor:
    """Return heatmaps (N, K, H, W), the maximum over the Gaussians of all people.

    A Gaussian is centred on the joint's pixel, has a peak of 1 and is truncated to a square with
    sides of 6 sigma + 3 pixels.

    Args:
        joints: (N, P, K, 2) in heatmap pixels.
        is_visible: (N, P, K), True for joints inside the heatmap.
        size: (width, height).
    """
    (count, _, num_joints), (width, height) = is_visible.shape, size
    radius = int(3 * sigma + 1)
    image, person, joint = joint_indices(is_visible)
    x, y = joints[image, person, joint].trunc().long().unbind(-1)
    offsets = torch.arange(-radius, radius + 1, device=joints.device)
    line = torch.exp(-offsets.square() / (2 * sigma**2))
    columns, rows = x[:, None] + offsets, y[:, None] + offsets
    is_inside = ((rows >= 0) & (rows < height))[:, :, None]
    is_inside = is_inside & ((columns >= 0) & (columns < width))[:, None]
    is_inside = is_inside & is_visible[image, person, joint][:, None, None]
    start = (image * num_joints + joint)[:, None, None] * height
    pixel = (start + rows[:, :, None]) * width + columns[:, None]
    patch = line[:, None] * line * is_inside
    heatmaps = torch.zeros(count * num_joints * height * width, device=joints.device)
    # Pixels outside the heatmap write 0 to the first pixel, which changes nothing. Removing them
    # would make the CPU wait for a GPU.
    heatmaps.scatter_reduce_(0, (pixel * is_inside).flatten(), patch.flatten(), "amax")
    return heatmaps.view(count, num_joints, height, width)


def joint_indices(is_visible: Tensor) -> tuple[Tensor, ...]:
    """Return indices (image, person, joint) of the visible joints or, on a GPU, of all joints.

    On a GPU, selecting the visible joints would make the CPU wait.
    """
    if is_visible.is_cuda:
        return all_indices(is_visible)
    return torch.nonzero(is_visible, as_tuple=True)


def all_indices(values: Tensor) -> tuple[Tensor, ...]:
    """Return the indices of all elements in the format of ``torch.nonzero(..., as_tuple=True)``."""
    lines = [torch.arange(size, device=values.device) for size in values.shape]
    return tuple(index.flatten() for index in torch.meshgrid(*lines, indexing="ij"))


def masked_mse(heatmaps: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean masked squared error (N,) of heatmaps (N, K, H, W), with masks (N, H, W)."""
    return ((heatmaps - target).square() * mask[:, None]).mean(dim=(1, 2, 3))


def read_maps(maps: Tensor, joints: Tensor) -> Tensor:
    """Return the values (N, P, K) of maps (N, K, H, W) at joints (N, P, K, 2).

    Values of joints outside the maps have no meaning.
    """
    # Without a limit, here larger than any map, the product in the next line could overflow.
    pixel = joints.clamp(max=1e6).trunc().long().clamp(min=0)
    pixel = pixel[..., 1] * maps.shape[3] + pixel[..., 0]  # (N, P, K)
    pixel = pixel.clamp(max=maps.shape[2] * maps.shape[3] - 1)
    return maps.flatten(2).gather(2, pixel.transpose(1, 2)).transpose(1, 2)


def tag_losses(tags: Tensor, target: SceneTarget, is_hinge: bool = False) -> tuple[Tensor, Tensor]:
    """Return the push and the pull loss, both (N,), of tags (N, K, H, W).

    Push keeps the mean tags of different people apart, pull keeps the tags of a person together.
    """
    joint_tags = read_maps(tags, target.joints)
    count = target.visible.sum(2)
    is_person = (count > 0).float()
    people = is_person.sum(1)
    mean = (joint_tags * target.visible).sum(2) / count.clamp(min=1)
    squared_error = (joint_tags - mean[..., None]).square() * target.visible
    spread = squared_error.sum(2) / count.clamp(min=1)
    pull = spread.sum(1) / people.clamp(min=1)
    difference = mean[:, :, None] - mean[:, None]
    exponential = torch.exp(-difference.square())
    push = (1 - difference.abs()).clamp(min=0) if is_hinge else exponential
    # Each person is also paired with themselves, which adds 1 per person.
    push = (push * is_person[:, :, None] * is_person[:, None]).sum((1, 2)) - people
    pairs = people * (people - 1)
    return 0.5 * torch.where(pairs > 0, push / pairs.clamp(min=1), 0), pull


def build(cfg: CfgNode, skeleton: Skeleton) -> TagCodec:
    """Build the codec of an experiment from MODEL.*, LOSS.* and TEST.*."""
    sizes = output_sizes(cfg)
    num_outputs = len(sizes)
    test, loss = cfg.TEST, cfg.LOSS
    kernel = test.NMS_KERNEL
    if kernel < 1 or kernel % 2 == 0 or kernel // 2 != test.NMS_PADDING:
        raise InputError(
            "TEST.NMS_KERNEL must be odd, and TEST.NMS_PADDING must be NMS_KERNEL // 2; they are "
            f"{kernel} and {test.NMS_PADDING}"
        )
    for key in ("HEATMAPS_LOSS_FACTOR", "PUSH_LOSS_FACTOR", "PULL_LOSS_FACTOR"):
        if len(loss[key]) < num_outputs:
            raise InputError(f"LOSS.{key}: needs {num_outputs} numbers, one for each output")
    if loss.AE_LOSS_TYPE not in ("exp", "max"):
        raise InputError(f"LOSS.AE_LOSS_TYPE: must be exp or max, not {loss.AE_LOSS_TYPE}")
    return TagCodec(
        sizes=tuple(sizes),
        sigma=cfg.MODEL.SIGMA,
        flip_pairs=skeleton.flip_pairs,
        grouping=Grouping(
            joint_order(skeleton.names),
            max_people=cfg.DATASET.MAX_NUM_PEOPLE,
            detection_threshold=test.DETECTION_THRESHOLD,
            tag_threshold=test.TAG_THRESHOLD,
            uses_score=test.USE_DETECTION_VAL,
            ignores_excess=test.IGNORE_TOO_MUCH,
            kernel=kernel,
            adjusts=test.ADJUST,
            refines=test.REFINE_PEOPLE,
        ),
        heatmap_factors=tuple(loss.HEATMAPS_LOSS_FACTOR),
        push_factors=tuple(loss.PUSH_LOSS_FACTOR),
        pull_factors=tuple(loss.PULL_LOSS_FACTOR),
        is_hinge=loss.AE_LOSS_TYPE == "max",
        max_tagged=cfg.DATASET.MAX_NUM_PEOPLE,
        enlarges_to_input=test.PROJECT2IMAGE,
    )
