"""Draw keypoint results in COCO's format onto their images and videos.

  python tools/draw.py output/coco/pose_hrnet/w32_256x192/results/keypoints_val2017_results_0.json
  python tools/draw.py results.json --images photos/ --annotations photos/annotations.json

The results may come from any program. The name of an image is its `file_name` in the results, or
else its name in the annotations, or else COCO's name for its `image_id`, such as 000000000785.jpg.
Replaces visualization/plot_coco.py of the original HRNet. See docs/demo.md for details.
"""

import argparse
import sys
from pathlib import Path

import _init_paths  # noqa: F401
from cli import command_parser, run

from lib.media.keypoint_results import KeypointResults
from lib.media.output import COLORS, FrameOutput, PeopleDrawer, check_folder
from lib.media.video import ErrorReporter, count_frames, read_frames, silence_opencv
from lib.utils.files import make_folder
from lib.utils.logs import counted, counted_people, progress


def main() -> None:
    silence_opencv()
    args = parse_args()
    problems = ErrorReporter()
    results = KeypointResults(args.results, args.annotations, problems, args.person_threshold)
    items = results.items(args.images, problems)
    if not items:
        sys.exit(1)
    check_folder(args.output, items)
    draw = PeopleDrawer(results.skeleton, args.threshold, color_by=args.color_by)
    frame_output = FrameOutput(draw, make_folder(args.output), None, problems)
    # Results with file names may come from the demo, which applies the EXIF orientation unless it
    # is given annotations.
    apply_exif = results.has_file_names and not args.annotations
    frames = read_frames(items, problems, apply_exif)
    count = 0
    for frame in progress(frames, count_frames(items), "frames"):
        poses, track_ids = results.people_of(frame)
        count += len(poses)
        frame_output.add(frame, poses, track_ids)
    frame_output.close()
    text = f"=> {counted_people(count)} in {counted(len(items), 'file')}: {args.output}"
    if results.below_threshold:
        text += f"; left out {results.below_threshold} with a score below {args.person_threshold:g}"
    print(text)
    if problems.count:
        sys.exit(1)


def parse_args() -> argparse.Namespace:
    parser = command_parser(__doc__)
    add = parser.add_argument
    add("results", nargs="?", metavar="RESULTS", help="JSON file of keypoint results")
    add("--prediction", dest="results_option", metavar="FILE", help="the same as RESULTS")
    text = "folder of the images (default: %(default)s)"
    images = "data/coco/images/val2017"
    add("--images", "--image-path", default=images, metavar="DIR", help=text)
    text = (
        "COCO annotation file with the names of images and joints (default: COCO's image names, "
        "and the built-in skeleton with as many joints as the results)"
    )
    add("--annotations", "--gt-anno", default="", metavar="FILE", help=text)
    text = "output folder (default: %(default)s)"
    add("--output", "--save-path", type=Path, default=Path("output/draw"), metavar="DIR", help=text)
    text = "draw only keypoints with a score above P (default: %(default)s)"
    add("--threshold", type=float, default=0.2, metavar="P", help=text)
    text = (
        "draw only people with a score of at least P (default: %(default)s; HRNet's script uses "
        "0.3)"
    )
    add("--person-threshold", type=float, default=0.0, metavar="P", help=text)
    text = "colour by side of the body, or by person (default: %(default)s)"
    add("--color-by", choices=COLORS, default=COLORS[0], help=text)
    args = parser.parse_args()
    args.results = args.results or args.results_option
    if args.results is None:
        parser.error("give a JSON file of keypoint results")
    return args


if __name__ == "__main__":
    run(main)
