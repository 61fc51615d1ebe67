"""The configuration schema: every key, its meaning and its default.

Keys that exist in the original HRNet code have the same names and meanings here and, except for
OUTPUT_DIR, LOG_DIR and MODEL.NUM_JOINTS, the same defaults. Sizes are (width, height) in pixels.

A comment that starts with ``simcc`` is about keys that are used only with SimCC (MODEL.TARGET_TYPE
simcc, sa_simcc, mm_simcc or rtm_simcc). A comment that starts with ``tags`` is about keys that are
used only with bottom-up networks (MODEL.TARGET_TYPE tags).
"""

from yacs.config import CfgNode as CN

_C = CN()

_C.EXPERIMENT = "{name}"  # name of the output and log folders; {name}: YAML file name without .yaml
_C.OUTPUT_DIR = "output"  # results: <OUTPUT_DIR>/<dataset>/<network>/<experiment>/
_C.LOG_DIR = "log"  # TensorBoard: <LOG_DIR>/<dataset>/<network>/<experiment>_<time>/
_C.DATA_DIR = ""  # prepended to the data and weight paths of the configuration
_C.GPUS = (0,)  # GPUs to use; unavailable ones are skipped, and with none the CPU is used
_C.WORKERS = 4  # data-loading processes, at most one per CPU core
_C.PRINT_FREQ = 20  # steps between two log lines
_C.AUTO_RESUME = False  # resume from checkpoint.pth if the output folder has one
_C.PIN_MEMORY = True  # page-locked batches for faster copies to a GPU
_C.SEED = 0  # random seed of initial weights, sample order and augmentation

_C.CUDNN = CN()
_C.CUDNN.BENCHMARK = True  # let cuDNN time its algorithms and use the fastest
_C.CUDNN.DETERMINISTIC = False  # use only deterministic algorithms
_C.CUDNN.ENABLED = True

_C.MODEL = CN()
_C.MODEL.NAME = "pose_hrnet"  # a key of lib.models.MODELS
_C.MODEL.INIT_WEIGHTS = True  # initialise with MODEL.INIT; False keeps PyTorch's defaults
_C.MODEL.INIT = "normal"  # normal (std 0.001, as published) or kaiming (trains faster from scratch)
_C.MODEL.PRETRAINED = ""  # initial weights, loaded where they fit; '' trains from scratch
_C.MODEL.NUM_JOINTS = 0  # keypoints per person; 0 uses the data set's number
_C.MODEL.HEAD = "heatmap"  # a key of lib.models.heads.HEADS: heatmap, sr, srpose, simcc, higher
_C.MODEL.TARGET_TYPE = "gaussian"  # representation of keypoints; a key of lib.core.codecs.CODECS
_C.MODEL.SIMDR_SPLIT_RATIO = 2.0  # simcc: bins per input pixel
_C.MODEL.IMAGE_SIZE = [256, 256]  # network input
_C.MODEL.HEATMAP_SIZE = [64, 64]  # network output; the coarser one if there are two
_C.MODEL.SIGMA = 2.0  # std of the target Gaussian, in heatmap pixels; in bins for simcc
_C.MODEL.SIMDR_SIGMA = []  # simcc, Gaussian targets: std along x and y, in bins; [] uses SIGMA
_C.MODEL.EXTRA = CN()  # settings of the chosen network; see lib/config/networks.py

_C.LOSS = CN()
_C.LOSS.USE_OHKM = False  # online hard keypoint mining instead of the mean over all joints
_C.LOSS.TOPK = 8  # OHKM: joints kept per person
_C.LOSS.USE_TARGET_WEIGHT = True  # exclude unannotated joints from the loss
_C.LOSS.LABEL_SMOOTHING = 0.1  # simcc, one-hot targets: label smoothing
_C.LOSS.MEAN_OVER_BINS = False  # simcc, one-hot targets: average the loss over bins
_C.LOSS.BETA = 10.0  # rtm_simcc: factor on outputs and targets before the softmax
_C.LOSS.USE_DIFFERENT_JOINTS_WEIGHT = False  # apply the data set's joint weights in the loss
# tags: loss weights, one for each output of the network. The names are HigherHRNet's.
_C.LOSS.HEATMAPS_LOSS_FACTOR = [1.0, 1.0]
_C.LOSS.PUSH_LOSS_FACTOR = [0.001, 0.001]  # keeps the tags of different people apart
_C.LOSS.PULL_LOSS_FACTOR = [0.001, 0.001]  # keeps the tags of one person together
_C.LOSS.AE_LOSS_TYPE = "exp"  # tags: form of the push loss, exp or max (a hinge)

_C.DATASET = CN()
_C.DATASET.ROOT = ""
_C.DATASET.DATASET = "mpii"  # a key of lib.dataset.DATASETS, or any name for your own data set
_C.DATASET.TRAIN_SET = "train"
_C.DATASET.TEST_SET = "valid"
_C.DATASET.DATA_FORMAT = "jpg"  # jpg, png or zip (images/<set>.zip instead of a folder)
_C.DATASET.MAX_BROKEN = 0.01  # maximum share of broken images; training replaces these with others
_C.DATASET.SELECT_DATA = False  # train only on people whose joints are well centred in their box
_C.DATASET.FLIP = True  # mirror half of the training samples
_C.DATASET.SCALE_FACTOR = 0.25  # std of the random scale, clipped at one std
_C.DATASET.ROT_FACTOR = 30.0  # std of the random rotation in degrees; 60 % of samples are rotated
_C.DATASET.PROB_HALF_BODY = 0.0  # probability of half-body augmentation
_C.DATASET.NUM_JOINTS_HALF_BODY = 8  # augment only people with more visible joints than this
_C.DATASET.PROB_SHIFT = 0.0  # probability of shifting a training box, by up to a fifth of its size
# tags: random transform of whole images. The names are HigherHRNet's.
_C.DATASET.MAX_ROTATION = 30.0  # degrees
_C.DATASET.MIN_SCALE = 0.75  # minimum side of the square crop, relative to a side of the image
_C.DATASET.MAX_SCALE = 1.5  # maximum side of the square crop
_C.DATASET.SCALE_TYPE = "short"  # image side that MIN_SCALE and MAX_SCALE refer to: short or long
_C.DATASET.MAX_TRANSLATE = 40.0  # maximum shift of the crop, in 1/200 of its side
_C.DATASET.MAX_NUM_PEOPLE = 30  # tags: maximum number of people per image, in training and grouping
# Photometric augmentation of training samples, by probability (lib/dataset/photometric.py).
_C.DATASET.PROB_COLOR = 0.0  # random exposure, contrast, gamma, white balance, saturation and hue
_C.DATASET.PROB_GRAY = 0.0  # grayscale
_C.DATASET.PROB_BLUR = 0.0  # Gaussian blur
_C.DATASET.PROB_NOISE = 0.0  # Gaussian noise
_C.DATASET.PROB_JPEG = 0.0  # JPEG artefacts
_C.DATASET.PROB_ERASE = 0.0  # up to three erased rectangles
_C.DATASET.COLOR_RGB = False  # the network's input is RGB; False: BGR, as for the published ResNets
# Your own data set in COCO format. Empty values are taken from the annotation file or derived from
# the joint names. In FLIP_PAIRS, LIMBS and UPPER_BODY, a joint is given by its name or number.
_C.DATASET.ANNOTATIONS = ""  # annotation file, relative to ROOT; {split} is TRAIN_SET or TEST_SET
_C.DATASET.IMAGES = ""  # image folder, relative to ROOT; '' is images/{split}
_C.DATASET.CATEGORIES = []  # category names; [] takes all categories that share the same joints
_C.DATASET.JOINT_NAMES = []  # in the order of the annotations
_C.DATASET.FLIP_PAIRS = []  # pairs of joints that mirroring swaps
_C.DATASET.SIGMAS = []  # OKS constant of each joint; see docs/own_data.md
_C.DATASET.LIMBS = []  # pairs of joints to connect in drawings
_C.DATASET.UPPER_BODY = []  # upper-body joints, for PROB_HALF_BODY
_C.DATASET.JOINT_WEIGHTS = []  # for LOSS.USE_DIFFERENT_JOINTS_WEIGHT

_C.TRAIN = CN()
_C.TRAIN.LR = 0.001
_C.TRAIN.LR_SCHEDULE = "multistep"  # multistep or cosine
_C.TRAIN.LR_STEP = [90, 110]  # multistep: decay LR at the start of these epochs, counted from 0
_C.TRAIN.LR_FACTOR = 0.1  # multistep: factor of each decay
_C.TRAIN.LR_MIN = 0.0  # cosine: LR at END_EPOCH
_C.TRAIN.WARMUP_ITERS = 0  # steps of linear warm-up; 0 for none
_C.TRAIN.WARMUP_FACTOR = 0.001  # warm-up starts at this fraction of LR
_C.TRAIN.OPTIMIZER = "adam"  # adam (ignores WD, like the published code), adamw or sgd
_C.TRAIN.MOMENTUM = 0.9  # sgd
_C.TRAIN.WD = 0.0001  # weight decay of adamw and sgd
_C.TRAIN.NESTEROV = False  # sgd
_C.TRAIN.BEGIN_EPOCH = 0
_C.TRAIN.END_EPOCH = 140
_C.TRAIN.EVAL_INTERVAL = 1  # validate every N epochs and after the last one; 0: never
_C.TRAIN.RESUME = False  # resume from checkpoint.pth in the output folder; it must exist
_C.TRAIN.CHECKPOINT = ""  # resume from this file, unless AUTO_RESUME finds checkpoint.pth
_C.TRAIN.CHECKPOINT_EVERY = 10.0  # minutes between checkpoints within an epoch; 0: none
_C.TRAIN.KEEP = 1  # N > 1: also keep checkpoints of the last N epochs, as checkpoint_<epoch>.pth
_C.TRAIN.EMA = 0.0  # decay of a moving average of the weights, which is validated and saved; 0: off
_C.TRAIN.BATCH_SIZE_PER_GPU = 32
_C.TRAIN.ACCUMULATE = 1  # batches whose gradients are averaged for one update
_C.TRAIN.SYNC_BN = False  # synchronize batch norms between processes on GPUs
_C.TRAIN.SHUFFLE = True
_C.TRAIN.LOG_GRAPH = False  # write the network's graph to TensorBoard; needs tensorboard installed
_C.TRAIN.AMP = False  # train in bfloat16 if the hardware supports it, else in float16 on a GPU
_C.TRAIN.COMPILE = False  # torch.compile the network, which takes minutes; needs a C++ compiler

_C.TEST = CN()
_C.TEST.BATCH_SIZE_PER_GPU = 32
_C.TEST.MAX_BROKEN = 0.0  # maximum share of broken images, which are left out of the test
_C.TEST.COMPILE = False  # torch.compile the network; with CUDA graphs on a GPU
_C.TEST.FLIP_TEST = False  # average the outputs for the input and for its mirror image
_C.TEST.POST_PROCESS = False  # refine heatmap maxima to sub-pixel positions
_C.TEST.REFINE = ""  # quarter, dark or udp; '' uses the method of MODEL.TARGET_TYPE
_C.TEST.BLUR_KERNEL = 0  # dark, udp: odd kernel size of the blur before refining; 0: from SIGMA
_C.TEST.SHIFT_HEATMAP = False  # flip test: shift the flipped heatmaps by one pixel
_C.TEST.USE_GT_BBOX = False  # use annotated boxes; False uses the detections in COCO_BBOX_FILE
_C.TEST.IMAGE_THRE = 0.1  # drop boxes with a lower detection score
_C.TEST.SOFT_NMS = False  # lower the scores of overlapping poses and keep the best 20 per image
_C.TEST.OKS_THRE = 0.5  # NMS: drop a pose if its OKS with a better one is higher
_C.TEST.IN_VIS_THRE = 0.0  # exclude joints with a lower score from the score of a person
_C.TEST.COCO_BBOX_FILE = ""  # detections: a JSON list of image_id, category_id, bbox, score
_C.TEST.MODEL_FILE = ""  # weights to test; '': the run's model_best.pth or final_state.pth
# tags: grouping of joints into people. The names are HigherHRNet's, except for REFINE_PEOPLE, which
# HigherHRNet calls REFINE.
_C.TEST.SCALE_FACTOR = [1.0]  # scales of the image; the heatmaps of all scales are averaged
_C.TEST.PROJECT2IMAGE = True  # enlarge heatmaps and tags to the input size before grouping
_C.TEST.NMS_KERNEL = 5  # side of the window in which a peak must be the maximum
_C.TEST.NMS_PADDING = 2  # must be half of NMS_KERNEL, rounded down
_C.TEST.DETECTION_THRESHOLD = 0.1  # joints with a lower score are dropped
_C.TEST.TAG_THRESHOLD = 1.0  # maximum distance between the tags of a joint and its person
_C.TEST.USE_DETECTION_VAL = True  # match by rounded tag distance, then by score
_C.TEST.IGNORE_TOO_MUCH = False  # once there are MAX_NUM_PEOPLE people, ignore the remaining joints
_C.TEST.ADJUST = True  # move keypoints to sub-pixel positions
_C.TEST.REFINE_PEOPLE = True  # fill in the joints that were not found

_C.DEBUG = CN()
_C.DEBUG.DEBUG = False  # save the images selected below, every PRINT_FREQ steps
_C.DEBUG.SAVE_BATCH_IMAGES_GT = False
_C.DEBUG.SAVE_BATCH_IMAGES_PRED = False
_C.DEBUG.SAVE_HEATMAPS_GT = False
_C.DEBUG.SAVE_HEATMAPS_PRED = False

# Keys of the original HRNet code that have no effect here; most have none there, either. They are
# accepted so that the original YAML files work unchanged.
IGNORED = (
    "RANK", "MODEL.TAG_PER_JOINT", "DATASET.HYBRID_JOINTS_TYPE", "TRAIN.GAMMA1", "TRAIN.GAMMA2",
    "TEST.NMS_THRE", "TEST.BBOX_THRE",
)  # fmt: skip

# Keys that apply only to top-down or only to bottom-up networks. An experiment with the other kind
# of network must leave them at their defaults.
TOP_DOWN_ONLY = (
    "LOSS.USE_OHKM", "LOSS.USE_DIFFERENT_JOINTS_WEIGHT", "DATASET.SELECT_DATA",
    "DATASET.SCALE_FACTOR", "DATASET.ROT_FACTOR", "DATASET.PROB_HALF_BODY", "DATASET.PROB_SHIFT",
    "TEST.POST_PROCESS", "TEST.REFINE", "TEST.BLUR_KERNEL", "TEST.SHIFT_HEATMAP", "TEST.SOFT_NMS",
    "TEST.COCO_BBOX_FILE",
)  # fmt: skip
BOTTOM_UP_ONLY = (
    "LOSS.HEATMAPS_LOSS_FACTOR", "LOSS.PUSH_LOSS_FACTOR", "LOSS.PULL_LOSS_FACTOR",
    "LOSS.AE_LOSS_TYPE", "DATASET.MAX_ROTATION", "DATASET.MIN_SCALE", "DATASET.MAX_SCALE",
    "DATASET.SCALE_TYPE", "DATASET.MAX_TRANSLATE", "DATASET.MAX_NUM_PEOPLE", "TEST.SCALE_FACTOR",
    "TEST.PROJECT2IMAGE", "TEST.NMS_KERNEL", "TEST.NMS_PADDING", "TEST.DETECTION_THRESHOLD",
    "TEST.TAG_THRESHOLD", "TEST.USE_DETECTION_VAL", "TEST.IGNORE_TOO_MUCH", "TEST.ADJUST",
    "TEST.REFINE_PEOPLE",
)  # fmt: skip


def default_config() -> CN:
    """Return a mutable copy of the defaults."""
    return _C.clone()
