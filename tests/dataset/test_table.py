"""The table of people."""

import numpy as np

from lib.dataset.table import Table, is_well_centered


def table(joints: np.ndarray, visible: np.ndarray, center, scale) -> Table:
    count = len(joints)
    return Table(
        image=np.arange(count, dtype=np.int32)[::-1].copy(),
        center=np.asarray(center, np.float32),
        scale=np.asarray(scale, np.float32),
        size=np.asarray(scale, np.float32) * 200,
        joints=joints.astype(np.float32),
        visible=visible.astype(np.float32),
        score=np.arange(count, dtype=np.float32),
        category=np.arange(count, dtype=np.int32) + 7,
        paths=np.array([f"bild/ä{n}.jpg".encode() for n in range(count)]),
        image_ids=np.arange(count) + 100,
    )


def random_table(count: int = 60) -> Table:
    rng = np.random.default_rng(0)
    center = rng.uniform(100, 200, (count, 2))
    joints = center[:, None] + rng.normal(0, 40, (count, 17, 2)) + rng.normal(0, 30, (count, 1, 2))
    visible = rng.integers(0, 2, (count, 17))
    visible[0] = 0
    return table(joints, visible, center, rng.uniform(0.3, 1.2, (count, 2)))


def test_select_accepts_indices_or_a_mask_and_keeps_the_images():
    whole = random_table(4)
    for rows in (np.array([2, 0]), np.array([True, False, True, False])):
        part = whole.select(rows)
        assert len(part) == 2
        assert part.score.tolist() == whole.score[rows].tolist()
        assert part.category.tolist() == whole.category[rows].tolist()
        assert part.joints.shape == (2, 17, 2)
        assert part.path(0) == whole.path(int(part.score[0]))
        assert len(part.paths) == len(part.image_ids) == 4
    assert whole.path(0) == "bild/ä3.jpg"


def test_well_centered_people_are_those_of_the_published_rule():
    people = random_table()
    expected = []
    for joints, visible, center, scale in zip(
        people.joints, people.visible, people.center, people.scale, strict=True
    ):
        seen = joints[visible > 0]
        if not len(seen):
            expected.append(False)
            continue
        distance = np.linalg.norm(seen.mean(0) - center)
        area = scale[0] * scale[1] * 200**2
        closeness = np.exp(-(distance**2) / (0.2**2 * 2 * area))
        expected.append(bool(closeness > 0.2 / 16 * len(seen) + 0.45 - 0.2 / 16))
    assert 5 < sum(expected) < 55
    assert is_well_centered(people).tolist() == expected
