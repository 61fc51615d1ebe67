"""Check an experiment's data before training.

  python tools/check_data.py --cfg experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml

Reads all annotations and images of DATASET.TRAIN_SET and DATASET.TEST_SET, and reports errors and
suspicious entries. Writes these files to <OUTPUT_DIR>/<dataset>/check/, or to --work-dir:

  findings.txt       all findings
  counts_<set>.png   charts of counts and sizes
  samples.jpg        two people with the numbers and names of their joints, and augmented training
                     samples with targets, as the network receives them

The exit code is 1 if training would fail.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import _init_paths  # noqa: F401
import numpy as np
from cli import experiment_parser, parse_experiment, run
from tqdm import tqdm
from yacs.config import CfgNode

from lib.config import is_bottom_up
from lib.core.codecs import build_codec
from lib.core.sheets import write_sample_sheet
from lib.dataset import build_dataset
from lib.dataset.check import Finding, check_annotations, check_images, check_people, shared_images
from lib.dataset.coco import CocoKeypoints
from lib.dataset.top_down import TopDownDataset
from lib.utils.charts import write_charts
from lib.utils.devices import choose_workers
from lib.utils.errors import InputError
from lib.utils.files import make_folder, write_atomically
from lib.utils.logs import console_handler, counted, counted_people, log_to

MAX_PRINTED = 5  # findings of each kind on the terminal


def main() -> None:
    args, test_cfg = parse_experiment(check_parser())
    cfg = test_cfg.clone()
    cfg.defrost()
    cfg.TEST.USE_GT_BBOX = True  # check the annotated boxes; detected ones are read below
    cfg.freeze()
    log_to(console_handler())
    for option in ("images", "samples"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise InputError(f"--{option}: must be 1 or more, not {value}")
    folder = make_folder(args.work_dir or Path(cfg.OUTPUT_DIR) / cfg.DATASET.DATASET / "check")
    findings: dict[str, list[Finding]] = {}
    sets: list[TopDownDataset] = []
    for split in dict.fromkeys((cfg.DATASET.TRAIN_SET, cfg.DATASET.TEST_SET)):
        try:
            is_train = split == cfg.DATASET.TRAIN_SET
            dataset = build_dataset(cfg, split, is_train)
        except InputError as error:
            findings[split] = [Finding("cannot be used", split, str(error), True)]
            continue
        sets.append(dataset)
        print(summary(dataset))
        findings[split] = check(
            dataset,
            args.images,
            choose_workers(cfg.WORKERS),
            (cfg.DATASET if is_train else cfg.TEST).MAX_BROKEN,
        )
        write_charts(folder / f"counts_{split}.png", *counts(dataset))
    is_complete = len(sets) == len(findings)
    can_draw = is_complete and not any_fatal(findings)
    if is_complete and needs_detected_boxes(test_cfg, sets[-1]):
        try:
            build_dataset(test_cfg, cfg.DATASET.TEST_SET, is_train=False)
        except InputError as error:
            found = Finding("cannot be used", "detected boxes", str(error), True)
            findings[cfg.DATASET.TEST_SET].append(found)
    if len(sets) > 1 and (shared := shared_images(sets[0].table, sets[1].table)):
        train, test = (dataset.source.split for dataset in sets)
        same = [(path, "" if path == other else f"the same as {other}: ") for path, other in shared]
        findings[f"{train} and {test}"] = [
            Finding("image in both sets", path, f"{text}test scores are too high")
            for path, text in same
        ]
    for where, found in findings.items():
        print(report(where, found, MAX_PRINTED))
    text = "\n".join(report(where, found, None) for where, found in findings.items())
    write_atomically(folder / "findings.txt", f"{text}\n".encode())
    if can_draw:  # after some fatal findings, there are no samples to draw
        codec = build_codec(cfg, sets[0].skeleton)
        write_sample_sheet(sets[0], codec, folder / "samples.jpg", args.samples)
    print(f"=> {'findings, charts and samples' if can_draw else 'findings'}: {folder}")
    if any_fatal(findings):
        sys.exit(1)


def any_fatal(findings: dict[str, list[Finding]]) -> bool:
    """Return True if training would fail."""
    return any(finding.is_fatal for found in findings.values() for finding in found)


def needs_detected_boxes(cfg: CfgNode, dataset: TopDownDataset) -> bool:
    """Return True if tests use detected boxes."""
    has_file = isinstance(dataset.source, CocoKeypoints) and not is_bottom_up(cfg)
    return has_file and not cfg.TEST.USE_GT_BBOX


def check_parser() -> argparse.ArgumentParser:
    parser = experiment_parser(__doc__)
    add = parser.add_argument
    text = "number of images to read from each set, evenly spaced (default: all)"
    add("--images", type=int, metavar="N", help=text)
    text = "number of samples to draw (default: %(default)s)"
    add("--samples", type=int, default=12, metavar="N", help=text)
    return parser


def summary(dataset: TopDownDataset) -> str:
    """Summarize a set in one line: people, images, sizes of boxes and labelled joints."""
    table = dataset.table
    images = np.unique(table.image)
    heights = table.size[:, 1]
    total = counted(len(table.paths), "image")
    return (
        f"=> {dataset.source.split}: {counted_people(len(table))} in {len(images)} of {total}; "
        f"boxes {heights.min():.0f} to {heights.max():.0f} pixels high, median "
        f"{np.median(heights):.0f}; {table.visible.sum(1).mean():.1f} of "
        f"{len(dataset.skeleton)} joints labelled on average"
    )


def check(
    dataset: TopDownDataset, images: int | None, workers: int, max_broken: float
) -> list[Finding]:
    """Run all checks on one split.

    Args:
        images: number of images to read, or None for all.
        workers: number of threads.
        max_broken: maximum share of broken images that is not fatal.
    """
    table, source = dataset.table, dataset.source
    found, sizes = [], None
    has_boxes = isinstance(source, CocoKeypoints)  # MPII has only centers and approximate sizes
    if has_boxes:
        found, sizes = check_annotations(source.annotation_file)
    found += check_people(table, dataset.skeleton, has_boxes)
    rows = np.unique(table.image)
    if images is not None and images < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, images).astype(int)]
    with tqdm(total=len(rows), desc=f"images of {source.split}", disable=None) as bar:
        found += check_images(table, sizes, rows, max(workers, 1), bar.update, max_broken)
    return found


def counts(dataset: TopDownDataset) -> tuple[dict, dict]:
    """Return the values of the histograms and the heights of the bars, each by chart title."""
    table = dataset.table
    people = np.unique(table.image, return_counts=True)[1]
    labelled = table.visible.sum(1).astype(int)
    joints = table.visible.sum(0)
    return {
        "people per image": people,
        "box height, pixels": table.size[:, 1],
        "box width / height": table.size[:, 0] / np.maximum(table.size[:, 1], 1e-6),
        "labelled joints per person": labelled,
    }, {"people with this joint labelled": (dataset.skeleton.names, joints)}


def report(where: str, found: list[Finding], limit: int | None) -> str:
    """Format the findings of a split by kind, with at most ``limit`` of each kind (None: all)."""
    if not found:
        return f"{where}: no problems found"
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for finding in found:
        kinds[finding.kind].append(finding)
    lines = [f"{where}:"]
    for kind, several in sorted(kinds.items(), key=lambda item: not item[1][0].is_fatal):
        mark = "error" if several[0].is_fatal else "warning"
        lines.append(f"  {mark}: {kind} ({len(several)})")
        lines += [f"    {finding.location}: {finding.message}" for finding in several[:limit]]
        if limit is not None and len(several) > limit:
            lines.append(f"    ... and {len(several) - limit} more in findings.txt")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main)
