"""HigherHRNet's own YAML files are translated to this project's keys."""

import pytest
import torch

from lib.config import load_config
from lib.models import build_model
from lib.utils.errors import InputError

HIGHER_HRNET_YAML = """
GPUS: (0,)
DATASET:
  SIGMA: 2
  DATASET: coco_kpt
  DATASET_TEST: coco
  FLIP: 0.5
  INPUT_SIZE: 640
  OUTPUT_SIZE: [160, 320]
  MAX_NUM_PEOPLE: 30
  MAX_ROTATION: 30
  MAX_SCALE: 1.5
  SCALE_TYPE: 'short'
  MAX_TRANSLATE: 40
  MIN_SCALE: 0.75
  NUM_JOINTS: 17
  ROOT: 'data/coco'
  TEST: val2017
  TRAIN: train2017
DEBUG: {SAVE_TAGMAPS_PRED: True}
FP16: {ENABLED: True, DYNAMIC_LOSS_SCALE: True}
LOSS:
  NUM_STAGES: 2
  AE_LOSS_TYPE: exp
  WITH_AE_LOSS: [True, False]
  PUSH_LOSS_FACTOR: [0.001, 0.001]
  PULL_LOSS_FACTOR: [0.001, 0.001]
  WITH_HEATMAPS_LOSS: [True, True]
  HEATMAPS_LOSS_FACTOR: [1.0, 1.0]
MODEL:
  EXTRA:
    FINAL_CONV_KERNEL: 1
    PRETRAINED_LAYERS: ['*']
    STEM_INPLANES: 64
    DECONV:
      NUM_DECONVS: 1
      NUM_CHANNELS: [32]
      KERNEL_SIZE: [4]
      NUM_BASIC_BLOCKS: 4
      CAT_OUTPUT: [True]
  INIT_WEIGHTS: True
  NAME: pose_higher_hrnet
  NUM_JOINTS: 17
  SYNC_BN: False
  TAG_PER_JOINT: True
TEST:
  FLIP_TEST: True
  IMAGES_PER_GPU: 1
  SCALE_FACTOR: [0.5, 1, 2]
  DETECTION_THRESHOLD: 0.1
  WITH_HEATMAPS: (True, True)
  WITH_AE: (True, False)
  PROJECT2IMAGE: True
  NMS_KERNEL: 5
  NMS_PADDING: 2
TRAIN:
  IMAGES_PER_GPU: 10
  LR_STEP: [200, 260]
"""


def test_yaml_files_of_higherhrnet_work_unchanged(tmp_path):
    path = tmp_path / "theirs.yaml"
    path.write_text(HIGHER_HRNET_YAML)
    cfg = load_config(path)
    model, data = cfg.MODEL, cfg.DATASET
    assert (model.NAME, model.HEAD, model.TARGET_TYPE) == ("pose_hrnet", "higher", "tags")
    assert (model.IMAGE_SIZE, model.HEATMAP_SIZE, model.SIGMA) == ([640, 640], [160, 160], 2)
    assert (data.DATASET, data.TRAIN_SET, data.COLOR_RGB) == ("coco", "train2017", True)
    assert (data.FLIP, cfg.TRAIN.BATCH_SIZE_PER_GPU, cfg.TRAIN.AMP) == (True, 10, True)
    assert cfg.TEST.SCALE_FACTOR == [0.5, 1, 2]
    with torch.device("meta"):
        assert sum(p.numel() for p in build_model(cfg).parameters()) == 28_645_331
    options = ["DATASET.OUTPUT_SIZE", "(128, 256)"]
    assert load_config(path, options).MODEL.HEATMAP_SIZE == [128, 128]
    with pytest.raises(InputError, match=r"command line: DATASET\.INPUT_SIZE has an invalid value"):
        load_config(path, ["DATASET.INPUT_SIZE", "large"])
    path.write_text(HIGHER_HRNET_YAML.replace("SIGMA: 2", "SCALE_AWARE_SIGMA: True"))
    with pytest.raises(InputError, match=r"DATASET\.SCALE_AWARE_SIGMA must be False"):
        load_config(path)
