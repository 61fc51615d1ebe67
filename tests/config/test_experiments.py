"""The files in experiments/: each loads, builds, has at most two bases and its paper's settings."""

from pathlib import Path

import pytest
import torch
import yaml

from lib.config import load_config, skeleton_of
from lib.core.codecs import build_codec
from lib.core.codecs.tags import TagCodec
from lib.models import build_model
from lib.utils.logs import experiment_folders

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = [
    *sorted(path for path in (ROOT / "experiments").rglob("*.yaml") if path.name != "base.yaml"),
    *sorted((ROOT / "models" / "hrpose").glob("*.yaml")),
]
SHARED = ("mmpose.yaml", "lightweight.yaml")
RUNNABLE = [path for path in EXPERIMENTS if path.name not in SHARED]


STAGES = """
    STAGE2: {NUM_MODULES: 1, NUM_BRANCHES: 2, BLOCK: BASIC, FUSE_METHOD: SUM,
      NUM_BLOCKS: [4, 4], NUM_CHANNELS: [48, 96]}
    STAGE3: {NUM_MODULES: 4, NUM_BRANCHES: 3, BLOCK: BASIC, FUSE_METHOD: SUM,
      NUM_BLOCKS: [4, 4, 4], NUM_CHANNELS: [48, 96, 192]}
    STAGE4: {NUM_MODULES: 3, NUM_BRANCHES: 4, BLOCK: BASIC, FUSE_METHOD: SUM,
      NUM_BLOCKS: [4, 4, 4, 4], NUM_CHANNELS: [48, 96, 192, 384]}
"""
TESTING = """
  BBOX_THRE: 1.0
  IMAGE_THRE: 0.0
  IN_VIS_THRE: 0.2
  NMS_THRE: 1.0
  OKS_THRE: 0.9
  USE_GT_BBOX: true
  FLIP_TEST: true
  POST_PROCESS: true
  SHIFT_HEATMAP: true
"""
# HRNet-W48 on COCO at 384x288, with every key, as in the original.
ORIGINAL_YAML = f"""
AUTO_RESUME: true
CUDNN: {{BENCHMARK: true, DETERMINISTIC: false, ENABLED: true}}
DATA_DIR: ''
GPUS: (0,1,2,3)
OUTPUT_DIR: 'output'
LOG_DIR: 'log'
WORKERS: 24
PRINT_FREQ: 100
DATASET:
  COLOR_RGB: true
  DATASET: 'coco'
  DATA_FORMAT: jpg
  FLIP: true
  NUM_JOINTS_HALF_BODY: 8
  PROB_HALF_BODY: 0.3
  ROOT: 'data/coco/'
  ROT_FACTOR: 45
  SCALE_FACTOR: 0.35
  TEST_SET: 'val2017'
  TRAIN_SET: 'train2017'
MODEL:
  INIT_WEIGHTS: true
  NAME: pose_hrnet
  NUM_JOINTS: 17
  PRETRAINED: 'models/pytorch/imagenet/hrnet_w48-8ef0771d.pth'
  TARGET_TYPE: gaussian
  IMAGE_SIZE: [288, 384]
  HEATMAP_SIZE: [72, 96]
  SIGMA: 3
  EXTRA:
    PRETRAINED_LAYERS: ['conv1', 'bn1', 'conv2', 'bn2', 'layer1', 'transition1', 'stage2',
      'transition2', 'stage3', 'transition3', 'stage4']
    FINAL_CONV_KERNEL: 1
{STAGES}
LOSS: {{USE_TARGET_WEIGHT: true}}
TRAIN: {{BATCH_SIZE_PER_GPU: 24, SHUFFLE: true, BEGIN_EPOCH: 0, END_EPOCH: 210, OPTIMIZER: adam,
  LR: 0.001, LR_FACTOR: 0.1, LR_STEP: [170, 200], WD: 0.0001, GAMMA1: 0.99, GAMMA2: 0.0,
  MOMENTUM: 0.9, NESTEROV: false}}
TEST:
  BATCH_SIZE_PER_GPU: 24
  COCO_BBOX_FILE: 'data/coco/person_detection_results/COCO_val2017_detections_AP_H_56_person.json'
  MODEL_FILE: ''
{TESTING}
DEBUG: {{DEBUG: true, SAVE_BATCH_IMAGES_GT: true, SAVE_BATCH_IMAGES_PRED: true,
  SAVE_HEATMAPS_GT: true, SAVE_HEATMAPS_PRED: true}}
"""


def test_the_original_yaml_is_equal_to_this_projects(tmp_path):
    (tmp_path / "original.yaml").write_text(ORIGINAL_YAML)
    original = load_config(tmp_path / "original.yaml")
    assert original == load_config(ROOT / "experiments/coco/hrnet/w48_384x288_adam_lr1e-3.yaml")


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_experiment_loads_and_its_network_fits_its_sizes(path, quick_shapes):
    cfg = load_config(path)
    codec = build_codec(cfg, skeleton_of(cfg))
    with torch.device("meta"), torch.no_grad():
        network = build_model(cfg).eval()
        outputs = network(torch.empty(1, 3, *cfg.MODEL.IMAGE_SIZE[::-1]))
        if isinstance(codec, TagCodec):
            heatmaps, _ = codec.merge(outputs)
            assert heatmaps.shape == (1, cfg.MODEL.NUM_JOINTS, *codec.sizes[-1][::-1])
        else:
            coords, scores = codec.decode(outputs)  # raises unless the size is MODEL.HEATMAP_SIZE
            assert (coords.shape, scores.shape) == ((1, cfg.MODEL.NUM_JOINTS, 2), coords.shape[:2])
    assert yaml.safe_load(cfg.dump())["MODEL"]["NAME"] == cfg.MODEL.NAME


def bases(path: Path) -> list[Path]:
    base = yaml.safe_load(path.read_text()).get("_BASE_")
    return [path.parent / base, *bases(path.parent / base)] if base else []


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_base_is_more_than_two_levels_up(path):
    assert len(bases(path)) <= 2, bases(path)


def test_experiments_have_different_output_folders():
    folders = [experiment_folders(load_config(path), path)[0] for path in RUNNABLE]
    assert len(set(folders)) == len(folders) > 60


# Rotation, scale, half body, learning rate, epochs, batch size per GPU, GPUs, sigma, optimizer.
MMPOSE = (40, 0.5, 0.3, 5e-4, 210)
RECIPES = {
    "coco/transpose/transpose_r_a4_256x192": (45, 0.35, 0.3, 1e-4, 230, 20, 1, 2, "adam"),
    "coco/transpose/transpose_h_s_256x192": (45, 0.35, 0.3, 1e-4, 240, 16, 2, 2, "adam"),
    "coco/transpose/transpose_h_a6_256x192": (45, 0.35, 0.3, 1e-4, 240, 14, 4, 2, "adam"),
    "coco/hrformer/hrformer_small_256x192": (*MMPOSE, 32, 8, 2, "adamw"),
    "coco/hrformer/hrformer_base_384x288": (*MMPOSE, 8, 8, 3, "adamw"),
    "coco/srpose/res50_256x192": (*MMPOSE, 32, 8, 8, "adam"),
    "coco/srpose/hrformer_small_256x192": (*MMPOSE, 32, 8, 8, "adamw"),
    "coco/sr_head/w32_256x192": (*MMPOSE, 32, 8, 8, "adam"),
    "coco/dark/w32_256x192": (*MMPOSE, 64, 8, 2, "adam"),
    "coco/udp/w32_256x192": (*MMPOSE, 64, 8, 2, "adam"),
    "coco/simcc/res50_256x192": (40, 0.3, 0, 1e-3, 140, 32, 4, 2, "adam"),
    "coco/simcc/w48_384x288": (45, 0.35, 0.3, 1e-3, 210, 32, 4, 4, "adam"),
    "mpii/simcc/w32_256x256": (30, 0.25, 0, 1e-3, 210, 32, 4, 6, "adam"),
    "mpii/srpose/w32_256x256": (40, 0.5, 0, 5e-4, 210, 32, 8, 8, "adam"),
    "crowdpose/hrnet/w32_256x192": (*MMPOSE, 64, 8, 2, "adam"),
    "crowdpose/srpose/res50_256x192": (*MMPOSE, 32, 8, 8, "adam"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_other_experiments_have_the_published_recipes(name):
    cfg = load_config(ROOT / "experiments" / f"{name}.yaml")
    data, train = cfg.DATASET, cfg.TRAIN
    augmentation = data.ROT_FACTOR, data.SCALE_FACTOR, max(data.PROB_HALF_BODY, 0)
    schedule = train.LR, train.END_EPOCH, train.BATCH_SIZE_PER_GPU, len(cfg.GPUS)
    assert RECIPES[name] == (*augmentation, *schedule, cfg.MODEL.SIGMA, train.OPTIMIZER)


# The original's fifteen files: image size, sigma, batch size, (rotation, scale, half body, RGB,
# learning rate steps, epochs), width or depth.
HRNET_COCO = (45, 0.35, 0.3, True, [170, 200], 210)
HRNET_MPII = (30, 0.25, 0.0, True, [170, 200], 210)
RESNET_COCO = (40, 0.3, 0.0, False, [90, 120], 140)
RESNET_MPII = (30, 0.25, 0.0, False, [90, 120], 140)
FACTS = {
    "coco/hrnet/w32_256x192_adam_lr1e-3": ([192, 256], 2, 32, HRNET_COCO, 32),
    "coco/hrnet/w32_384x288_adam_lr1e-3": ([288, 384], 3, 32, HRNET_COCO, 32),
    "coco/hrnet/w48_256x192_adam_lr1e-3": ([192, 256], 2, 32, HRNET_COCO, 48),
    "coco/hrnet/w48_384x288_adam_lr1e-3": ([288, 384], 3, 24, HRNET_COCO, 48),
    "mpii/hrnet/w32_256x256_adam_lr1e-3": ([256, 256], 2, 32, HRNET_MPII, 32),
    "mpii/hrnet/w48_256x256_adam_lr1e-3": ([256, 256], 2, 32, HRNET_MPII, 48),
}
for _depth in (50, 101, 152):
    for _size, _sigma in ((256, 192), 2), ((384, 288), 3):
        _name = f"coco/resnet/res{_depth}_{_size[0]}x{_size[1]}_d256x3_adam_lr1e-3"
        FACTS[_name] = ([*_size[::-1]], _sigma, 32, RESNET_COCO, _depth)
    _name = f"mpii/resnet/res{_depth}_256x256_d256x3_adam_lr1e-3"
    FACTS[_name] = ([256, 256], 2, 32, RESNET_MPII, _depth)


@pytest.mark.parametrize("name", FACTS)
def test_the_hrnet_and_resnet_experiments_have_the_original_settings(name):
    size, sigma, batch, rest, width = FACTS[name]
    cfg = load_config(ROOT / "experiments" / f"{name}.yaml")
    assert size == cfg.MODEL.IMAGE_SIZE
    assert [side // 4 for side in size] == cfg.MODEL.HEATMAP_SIZE
    assert (sigma, batch) == (cfg.MODEL.SIGMA, cfg.TRAIN.BATCH_SIZE_PER_GPU)
    data = cfg.DATASET
    augmentation = data.ROT_FACTOR, data.SCALE_FACTOR, max(data.PROB_HALF_BODY, 0.0)
    assert (*augmentation, data.COLOR_RGB, cfg.TRAIN.LR_STEP, cfg.TRAIN.END_EPOCH) == rest
    extra = cfg.MODEL.EXTRA
    assert width == (extra.STAGE2.NUM_CHANNELS[0] if "hrnet" in name else extra.NUM_LAYERS)
    assert (17 if name.startswith("coco") else 16) == cfg.MODEL.NUM_JOINTS
    assert (cfg.TRAIN.LR, cfg.TRAIN.OPTIMIZER, cfg.TRAIN.LR_FACTOR) == (0.001, "adam", 0.1)
    assert cfg.TEST.FLIP_TEST and cfg.TEST.POST_PROCESS and cfg.TEST.SHIFT_HEATMAP
    assert cfg.GPUS == (0, 1, 2, 3)


# Size, output size, sigma, learning rate, warm-up, batch size per GPU, GPUs, NMS kernel.
BOTTOM_UP = {
    "coco/bottom_up/res50_512x512": (512, 128, 2, 0.0015, 500, 24, 8, 5),
    "coco/bottom_up/w32_512x512": (512, 128, 2, 0.0015, 500, 24, 8, 5),
    "coco/bottom_up/res50_sr_512x512": (512, 512, 8, 0.0015, 500, 24, 8, 5),
    "coco/bottom_up/w32_sr_512x512": (512, 512, 8, 0.0015, 500, 24, 8, 11),
    "coco/bottom_up/higher_w32_512x512": (512, 128, 2, 0.001, 0, 12, 4, 5),
    "coco/bottom_up/higher_w32_640x640": (640, 160, 2, 0.001, 0, 12, 4, 5),
    "coco/bottom_up/higher_w48_512x512": (512, 128, 2, 0.001, 0, 10, 4, 5),
    "coco/bottom_up/higher_w48_640x640": (640, 160, 2, 0.001, 0, 10, 4, 5),
    "crowdpose/bottom_up/higher_w32_512x512": (512, 128, 2, 0.001, 0, 12, 4, 5),
    "crowdpose/bottom_up/w32_sr_512x512": (512, 512, 8, 0.0015, 500, 24, 8, 11),
}


@pytest.mark.parametrize("name", BOTTOM_UP)
def test_the_bottom_up_experiments_have_the_published_recipes(name):
    cfg = load_config(ROOT / "experiments" / f"{name}.yaml")
    train, model = cfg.TRAIN, cfg.MODEL
    sizes = model.IMAGE_SIZE[0], model.HEATMAP_SIZE[0], model.SIGMA
    schedule = train.LR, train.WARMUP_ITERS, train.BATCH_SIZE_PER_GPU, len(cfg.GPUS)
    assert BOTTOM_UP[name] == (*sizes, *schedule, cfg.TEST.NMS_KERNEL)
    assert (train.OPTIMIZER, train.LR_STEP, train.END_EPOCH) == ("adam", [200, 260], 300)


# Learning rate, epochs, batch size per GPU, epochs between validations, sigma at 384x288.
LIGHTWEIGHT = {
    ("coco", "lite"): (0.002, 210, 64, 10, 3),
    ("coco", "dite"): (0.002, 270, 32, 10, 3),
    ("coco", "wide"): (0.0005, 210, 32, 10, 2),
    ("mpii", "lite"): (0.002, 210, 32, 5, None),
    ("mpii", "dite"): (0.002, 260, 32, 10, None),
    ("mpii", "wide"): (0.002, 210, 16, 10, None),
}


@pytest.mark.parametrize(("dataset", "family"), LIGHTWEIGHT)
def test_the_lightweight_experiments_are_the_published_ones(dataset, family):
    rate, epochs, batch, interval, sigma = LIGHTWEIGHT[dataset, family]
    files = sorted((ROOT / "experiments" / dataset / f"{family}_hrnet").glob("*hrnet_*.yaml"))
    assert len(files) == {"lite": 6, "dite": 4, "wide": 3}[family] - (
        {"lite": 2, "dite": 2, "wide": -1}[family] if dataset == "mpii" else 0
    )
    for path in files:
        cfg, name = load_config(path), path.stem
        is_large, is_deep = "384x288" in name, "_30" in name
        data, train, extra = cfg.DATASET, cfg.TRAIN, cfg.MODEL.EXTRA
        assert ([3, 8, 3] if is_deep else [2, 4, 2]) == extra.NUM_MODULES, name
        assert (sigma if is_large else 2) == cfg.MODEL.SIGMA, name
        assert [int(n) for n in name.split("_")[-1].split("x")][::-1] == cfg.MODEL.IMAGE_SIZE
        slow = dataset == "mpii" and family == "wide" and is_deep
        assert (0.0005 if slow else rate) == train.LR, name
        small = family == "lite" and is_large
        assert (32 if small else batch) == train.BATCH_SIZE_PER_GPU, name
        assert (epochs, interval) == (train.END_EPOCH, train.EVAL_INTERVAL), name
        assert (train.LR_STEP, train.WARMUP_ITERS, train.WARMUP_FACTOR) == ([170, 200], 500, 1e-3)
        assert (data.ROT_FACTOR, data.SCALE_FACTOR, data.COLOR_RGB) == (30, 0.25, True), name
        half, shift = max(data.PROB_HALF_BODY, 0.0), data.PROB_SHIFT
        assert (half, shift) == ((0.3, 0.3) if dataset == "coco" else (0.0, 0.0)), name
        assert len(cfg.GPUS) == (1 if (dataset, family) == ("mpii", "wide") else 8), name
        if family == "wide":
            assert ("_se" in name) == extra.WITH_SE, name
        if family == "lite":
            assert ("NAIVE" if "naive" in name else "LITE") == extra.MODULE_TYPE, name
            assert extra.NUM_CHANNELS[0] == (30 if name.startswith("naive") else 40), name


def test_the_published_atrw_yaml_is_equal_to_this_projects(tmp_path):
    theirs = tmp_path / "w48_384x288.yaml"
    theirs.write_text(f"""GPUS: (0,1)
OUTPUT_DIR: '/root/hrnet/code/output'
DATASET:
  COLOR_RGB: true
  DATASET: 'atrw'
  DATA_FORMAT: jpg
  FLIP: true
  NUM_JOINTS_HALF_BODY: 7
  PROB_HALF_BODY: 0.5
  ROOT: '/root/hrnet/code/deep-high-resolution-net.pytorch-master/data/atrw/'
  ROT_FACTOR: 45
  SCALE_FACTOR: 0.35
  TEST_SET: 'val'
  TRAIN_SET: 'train'
MODEL:
  INIT_WEIGHTS: true
  NAME: pose_hrnet
  NUM_JOINTS: 15
  PRETRAINED: '/root/hrnet/hrnet_w48-8ef0771d.pth'
  TARGET_TYPE: gaussian
  IMAGE_SIZE: [256, 192]
  HEATMAP_SIZE: [64, 48]
  SIGMA: 3
  EXTRA:
    FINAL_CONV_KERNEL: 1
{STAGES}
LOSS: {{USE_TARGET_WEIGHT: true}}
TRAIN: {{BATCH_SIZE_PER_GPU: 24, END_EPOCH: 120, OPTIMIZER: adam, LR: 0.0005, LR_STEP: [90, 110]}}
TEST:
  BATCH_SIZE_PER_GPU: 128
{TESTING}""")
    own = load_config(ROOT / "experiments" / "atrw" / "w48_384x288.yaml")
    options = ["OUTPUT_DIR", own.OUTPUT_DIR, "DATASET.ROOT", own.DATASET.ROOT]
    cfg = load_config(theirs, [*options, "MODEL.PRETRAINED", own.MODEL.PRETRAINED])
    for section in ("DATASET", "MODEL", "LOSS", "TRAIN", "TEST"):
        assert cfg[section] == own[section], section
    skeleton = skeleton_of(cfg)
    assert len(skeleton) == 15 and len(skeleton.upper_body) == 7
