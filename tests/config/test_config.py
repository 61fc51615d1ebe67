"""Experiment files: inheritance, KEY VALUE options, the original's YAML files and errors."""

import os
from pathlib import Path

import pytest
from yacs.config import CfgNode

from lib.config import load_config
from lib.config.default import IGNORED, default_config
from lib.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
W32 = ROOT / "experiments/coco/hrnet/w32_256x192_adam_lr1e-3.yaml"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def one(tmp_path: Path, text: str, *opts: str) -> CfgNode:
    return load_config(write(tmp_path / "one.yaml", text), opts)


def test_an_empty_experiment_is_the_defaults(tmp_path):
    cfg = one(tmp_path, "")
    expected = default_config()
    extra = cfg.MODEL.EXTRA
    assert extra.STAGE4.NUM_CHANNELS == [32, 64, 128, 256]
    expected.MODEL.EXTRA = extra.clone()
    expected.DATASET.ROOT = "."
    expected.MODEL.NUM_JOINTS = 16  # those of MPII, the default data set
    assert cfg == expected


def test_base_paths_are_relative_to_the_file_and_nearer_files_take_precedence(tmp_path):
    write(tmp_path / "base.yaml", "PRINT_FREQ: 1\nWORKERS: 1\nTRAIN: {LR: 0.1, END_EPOCH: 1}\n")
    write(tmp_path / "a/base.yaml", "_BASE_: ../base.yaml\nWORKERS: 2\nTRAIN: {END_EPOCH: 2}\n")
    path = write(tmp_path / "a/b/c.yaml", "_BASE_: ../base.yaml\nTRAIN: {WD: 0.5}\n")
    cfg = load_config(path, ["TRAIN.WD", "0.25"])
    assert (cfg.PRINT_FREQ, cfg.WORKERS) == (1, 2)
    assert (cfg.TRAIN.LR, cfg.TRAIN.END_EPOCH, cfg.TRAIN.WD) == (0.1, 2, 0.25)
    assert load_config(str(path)).TRAIN.WD == 0.5


def test_a_circular_base_is_an_error(tmp_path):
    write(tmp_path / "a.yaml", "_BASE_: b.yaml")
    write(tmp_path / "b.yaml", "_BASE_: ./a.yaml")
    with pytest.raises(InputError, match=r"a\.yaml: circular _BASE_"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("base", ["[a.yaml, b.yaml]", "3", "{a: 1}"])
def test_a_base_must_be_one_path(tmp_path, base):
    with pytest.raises(InputError, match=r"one\.yaml: _BASE_ must be the path of a YAML file"):
        one(tmp_path, f"_BASE_: {base}")


def test_a_missing_base_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml: cannot read the experiment: No such file"):
        one(tmp_path, "_BASE_: none.yaml")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("GPUS", "0", (0,)),
        ("GPUS", "(0,1)", (0, 1)),
        ("GPUS", "[2, 0]", (2, 0)),
        ("GPUS", "()", ()),
        ("TRAIN.LR_STEP", "[3, 5]", [3, 5]),
        ("TRAIN.LR_STEP", "(3,5)", [3, 5]),
        ("TRAIN.LR_STEP", "7", [7]),
        ("DATASET.PROB_HALF_BODY", "-1.0", -1.0),
        ("DATASET.PROB_HALF_BODY", "-1", -1.0),
        ("TRAIN.BEGIN_EPOCH", "1", 1),
        ("TEST.IMAGE_THRE", "-.5", -0.5),
        ("TRAIN.LR", "1e-4", 1e-4),
        ("TRAIN.LR", "1", 1.0),
        ("MODEL.SIGMA", "3", 3.0),
        ("AUTO_RESUME", "True", True),
        ("AUTO_RESUME", "true", True),
        ("TEST.FLIP_TEST", "False", False),
        ("MODEL.PRETRAINED", "", ""),
        ("MODEL.PRETRAINED", "''", ""),
        ("MODEL.PRETRAINED", "'", "'"),
        ("DATASET.TEST_SET", "2017", "2017"),
        ("TEST.MODEL_FILE", "a b/(0,1).pth", "a b/(0,1).pth"),
        ("MODEL.EXTRA.STAGE2.NUM_CHANNELS", "[8, 16]", [8, 16]),
    ],
)
def test_options_are_converted_to_the_type_of_the_key(key, text, value):
    cfg = load_config(W32, [key, text])
    node = cfg
    for name in key.split("."):
        node = node[name]
    assert node == value and type(node) is type(value)


def test_the_last_value_of_a_repeated_option_is_used():
    assert load_config(W32, ["TRAIN.LR", "1", "TRAIN.LR", "2"]).TRAIN.LR == 2


def test_fractions_may_override_integers_of_a_yaml_file(tmp_path):
    yaml = "MODEL: {TARGET_TYPE: tags}\nTEST: {SCALE_FACTOR: [1]}\n"
    cfg = one(tmp_path, yaml, "TEST.SCALE_FACTOR", "[0.5, 1]")
    assert cfg.TEST.SCALE_FACTOR == [0.5, 1]
    yaml = f"DATASET: {{DATASET: coco, JOINT_WEIGHTS: {[1] * 17}}}"
    cfg = one(tmp_path, yaml, "DATASET.JOINT_WEIGHTS", str([1.5] * 17))
    assert cfg.DATASET.JOINT_WEIGHTS == [1.5] * 17


def test_strings_in_yaml_files_are_converted_to_the_type_of_the_key(tmp_path):
    cfg = one(tmp_path, "GPUS: (0,1)\nTRAIN: {LR: 1e-3, LR_STEP: 5}\nMODEL: {PRETRAINED: null}\n")
    assert cfg.GPUS == (0, 1) and cfg.TRAIN.LR == 1e-3 and cfg.TRAIN.LR_STEP == [5]
    assert cfg.MODEL.PRETRAINED == ""


@pytest.mark.parametrize(
    ("text", "opts", "message"),
    [
        ("TRAIN: {LR_STEPS: [1]}", (), r"one\.yaml: unknown key TRAIN.LR_STEPS; .*TRAIN.LR_STEP"),
        ("", ("TRAIN.LRR", "1"), r"command line: unknown key TRAIN.LRR; .*TRAIN.LR\b"),
        ("BATCH_SIZE_PER_GPU: 1", (), "unknown key BATCH_SIZE_PER_GPU; .*TRAIN.BATCH_SIZE_PER_GPU"),
        ("MODEL: {FLIP_TEST: true}", (), "unknown key MODEL.FLIP_TEST; .*TEST.FLIP_TEST"),
        (
            "MODEL: {EXTRA: {STAGE5: {}}}",
            (),
            r"unknown key MODEL.EXTRA.STAGE5; .*MODEL.EXTRA.STAGE4",
        ),
        ("QQQ: 1", (), "unknown key QQQ; choose from EXPERIMENT"),
        ("5: 1", (), "unknown key 5"),
        ("", ("TRAIN", "1"), "command line: TRAIN is a section of keys; it cannot be '1'"),
        ("TRAIN:", (), "TRAIN is a section of keys; it cannot be None"),
        ("", ("TRAIN.LR.X", "1"), "command line: TRAIN.LR must be a number"),
        ("", ("TRAIN.LR",), "'TRAIN.LR' has no value"),
        ("", ("TRAIN.LR", "fast"), "TRAIN.LR must be a number, not 'fast'"),
        ("", ("TRAIN.LR", ""), "TRAIN.LR must be a number, not ''"),
        ("", ("TRAIN.LR", "True"), "TRAIN.LR must be a number"),
        ("", ("TRAIN.END_EPOCH", "1.5"), "TRAIN.END_EPOCH must be an integer, not '1.5'"),
        ("", ("TRAIN.END_EPOCH", "{[1]: 2}"), "TRAIN.END_EPOCH must be an integer"),
        ("", ("TRAIN.END_EPOCH", "2020-99-99"), "TRAIN.END_EPOCH must be an integer"),
        ("AUTO_RESUME: 1", (), r"one\.yaml: AUTO_RESUME must be true or false, not 1"),
        ("MODEL: {NAME: 3}", (), "MODEL.NAME must be a string, not 3; put it in quotes"),
        ("GPUS: [0, x]", (), "GPUS must be a list of integers"),
        ("GPUS: [0, 0]", (), "GPUS must be distinct device numbers"),
        ("GPUS: true", (), "GPUS must be a list of integers"),
        ("MODEL: {IMAGE_SIZE: [192]}", (), "MODEL.IMAGE_SIZE must be a width and a height"),
        ("MODEL: {IMAGE_SIZE: [192, 0]}", (), "MODEL.IMAGE_SIZE must be a width and a height"),
        ("MODEL: {HEATMAP_SIZE: [4.5, 6]}", (), "MODEL.HEATMAP_SIZE must be a list of integers"),
        ("TRAIN: {BATCH_SIZE_PER_GPU: 0}", (), "TRAIN.BATCH_SIZE_PER_GPU must be at least 1"),
        ("TRAIN: {EVAL_INTERVAL: -1}", (), "TRAIN.EVAL_INTERVAL must be 0 or more"),
        ("PRINT_FREQ: 0", (), r"one\.yaml: PRINT_FREQ must be at least 1"),
        ("", ("PRINT_FREQ", "0"), "^command line: PRINT_FREQ must be at least 1"),
        (
            "",
            ("DATASET.MAX_SCALE", "0.5"),
            r"^command line: DATASET.MIN_SCALE .* \(0.5\), not 0.75",
        ),
        ("WORKERS: -1", (), "WORKERS must be 0 or more"),
        ("", ("SEED", "-1"), "SEED must be 0 or more"),
        ("TEST: {OKS_THRE: -1}", (), "TEST.OKS_THRE must be 0 or more, not -1.0"),
        ("TEST: {OKS_THRE: 0, SOFT_NMS: true}", (), "TEST.OKS_THRE must be above 0"),
        ("MODEL: {SIGMA: .nan}", (), "MODEL.SIGMA must be above 0"),
        ("DATASET: {DATA_FORMAT: tar}", (), "DATASET.DATA_FORMAT must be jpg, png or zip"),
    ],
)
def test_a_wrong_key_or_value_is_an_error_that_tells_what_would_be_right(
    tmp_path, text, opts, message
):
    with pytest.raises(InputError, match=message) as caught:
        one(tmp_path, text, *opts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"MODEL: {NAME: [", "not a YAML file"),
        (b"a: b: c", "not a YAML file"),
        (b"\xff\xfe\x00", "not a YAML file"),
        (b"NAME: 2020-99-99", "not a YAML file"),
        (b"%s", "not a YAML file"),
        (b"!!python/object:os.system {}", "not a YAML file"),
        (b"- a\n- b\n", "an experiment must be a mapping of keys, not a list"),
        (b"hello", "an experiment must be a mapping of keys, not a str"),
    ],
)
def test_a_file_without_a_yaml_mapping_is_an_error_that_names_it(tmp_path, content, message):
    path = tmp_path / "one.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_file_or_a_folder_is_an_error_that_names_it(tmp_path):
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=reason) as caught:
            load_config(path)
        assert str(path) in str(caught.value)


def test_a_config_is_frozen():
    with pytest.raises(AttributeError):
        load_config(W32).MODEL.NAME = "other"


def test_experiments_do_not_change_the_defaults_of_later_ones(tmp_path):
    first = load_config(W32, ["MODEL.EXTRA.STAGE2.NUM_CHANNELS", "[1, 2]"])
    assert first.MODEL.EXTRA.STAGE2.NUM_CHANNELS == [1, 2]
    assert one(tmp_path, "").MODEL.EXTRA.STAGE2.NUM_CHANNELS == [32, 64]


def test_data_dir_is_prepended_to_paths_of_data_and_weights(tmp_path):
    text = "DATASET: {ROOT: coco}\nMODEL: {PRETRAINED: m/a.pth}\n"
    cfg = one(tmp_path, text, "DATA_DIR", str(tmp_path), "TEST.MODEL_FILE", "m/b.pth")
    assert str(tmp_path / "coco") == cfg.DATASET.ROOT
    assert str(tmp_path / "m/a.pth") == cfg.MODEL.PRETRAINED
    assert str(tmp_path / "m/b.pth") == cfg.TEST.MODEL_FILE
    cfg = one(tmp_path, text, "DATA_DIR", str(tmp_path), "DATASET.ROOT", "/elsewhere")
    assert cfg.DATASET.ROOT == "/elsewhere" and cfg.TEST.MODEL_FILE == ""
    assert one(tmp_path, text).MODEL.PRETRAINED == "m/a.pth"


def test_detected_boxes_may_be_relative_to_data_dir(tmp_path):
    boxes = write(tmp_path / "boxes.json", "[]")
    here = one(tmp_path, "", "TEST.COCO_BBOX_FILE", str(boxes), "DATA_DIR", "/data")
    assert str(boxes) == here.TEST.COCO_BBOX_FILE
    below = one(tmp_path, "", "TEST.COCO_BBOX_FILE", "boxes.json", "DATA_DIR", str(tmp_path))
    assert str(boxes) == below.TEST.COCO_BBOX_FILE


def test_keys_without_effect_in_the_original_are_accepted(tmp_path):
    for key in IGNORED:
        cfg = one(tmp_path, "", key, "0.5")
        assert cfg == one(tmp_path, "")
    assert {"TRAIN.GAMMA1", "TRAIN.GAMMA2", "TEST.NMS_THRE", "TEST.BBOX_THRE", "RANK"} <= set(
        IGNORED
    )
    with pytest.raises(InputError, match=r"TRAIN\.GAMMA3"):
        one(tmp_path, "TRAIN: {GAMMA3: 1}")


@pytest.mark.parametrize("name", ["a/b", "..\\c", "{other}"])
def test_an_experiment_name_must_be_a_folder_name(tmp_path, name):
    with pytest.raises(InputError, match="EXPERIMENT must be a folder name"):
        one(tmp_path, f"EXPERIMENT: '{name}'")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 3000 + "]" * 3000,
        "MODEL: &m {EXTRA: *m}",
        "MODEL: {EXTRA: {DECONV: &d {A: *d}}}",
        '_BASE_: "a\\0.yaml"',
        "EXPERIMENT: ..",
        "EXPERIMENT: .",
        'EXPERIMENT: "a\\0"',
        "TRAIN: {EMA: 1.5}",
        "TRAIN: {KEEP: 0}",
        "DATASET: {MAX_BROKEN: 1}",
    ],
)
def test_malicious_files_are_reported_in_one_line(tmp_path, text):
    with pytest.raises(InputError) as error:
        one(tmp_path, text)
    assert "one.yaml" in str(error.value) or "NUL" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pipe_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "one.yaml")
    with pytest.raises(InputError, match=r"one\.yaml is a pipe or device"):
        load_config(tmp_path / "one.yaml")
