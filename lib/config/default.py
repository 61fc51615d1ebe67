"""The schema: every key of an experiment, its meaning and its default.

Names, defaults and meanings are those of the original HRNet code wherever it has the key. Sizes are
(width, height) in pixels.
"""

from yacs.config import CfgNode as CN

_C = CN()

_C.EXPERIMENT = "{name}"  # names the folders of results and log; {name} is the YAML's own name
_C.OUTPUT_DIR = "output"  # results: <OUTPUT_DIR>/<dataset>/<network>/<experiment>/
_C.LOG_DIR = "log"  # TensorBoard: <LOG_DIR>/<dataset>/<network>/<experiment>_<time>/
_C.DATA_DIR = ""  # put before the paths of data and weights in this file
_C.GPUS = (0,)  # devices to use; those that are absent are left out, none at all means the CPU
_C.WORKERS = 4  # data-loading processes; never more than the machine has cores
_C.PRINT_FREQ = 20  # steps between two lines of the log
_C.AUTO_RESUME = False  # go on from checkpoint.pth when the output folder has one
_C.PIN_MEMORY = True  # page-locked batches for faster copies to a GPU
_C.SEED = 0  # of initial weights, order of samples and augmentation

_C.CUDNN = CN()
_C.CUDNN.BENCHMARK = True  # let cuDNN time its algorithms and keep the fastest
_C.CUDNN.DETERMINISTIC = False  # only algorithms that give the same bits every time
_C.CUDNN.ENABLED = True

_C.MODEL = CN()
_C.MODEL.NAME = "pose_hrnet"  # a key of lib.models.MODELS
_C.MODEL.INIT_WEIGHTS = True  # initialise as MODEL.INIT says; False keeps PyTorch's
_C.MODEL.INIT = "normal"  # the papers' (std 0.001), or kaiming: learns faster from scratch
_C.MODEL.PRETRAINED = ""  # checkpoint to start from, what fits is loaded; '' trains from scratch
_C.MODEL.NUM_JOINTS = 0  # keypoints per person; 0 is the data set's number
_C.MODEL.HEAD = "heatmap"  # a key of lib.models.heads.HEADS: heatmap, sr, srpose or simcc
_C.MODEL.TARGET_TYPE = "gaussian"  # a key of lib.core.codecs.CODECS
_C.MODEL.SIMDR_SPLIT_RATIO = 2.0  # simcc: bins to a pixel of the input
_C.MODEL.IMAGE_SIZE = [256, 256]  # network input
_C.MODEL.HEATMAP_SIZE = [64, 64]  # network output
_C.MODEL.SIGMA = 2.0  # of the target's Gaussian, in heatmap pixels; simcc's Gaussians: in bins
_C.MODEL.SIMDR_SIGMA = []  # simcc's Gaussians: along x and y, in bins; [] is SIGMA along both
_C.MODEL.EXTRA = CN()  # what only this network has: see lib/config/networks.py

_C.LOSS = CN()
_C.LOSS.USE_OHKM = False  # online hard keypoint mining instead of the mean over all joints
_C.LOSS.TOPK = 8  # joints that OHKM keeps for each person
_C.LOSS.USE_TARGET_WEIGHT = True  # leave joints without annotation out of the loss
_C.LOSS.LABEL_SMOOTHING = 0.1  # simcc with whole bins: what the other bins share of a target
_C.LOSS.MEAN_OVER_BINS = False  # simcc with whole bins: NMTNORMCritierion, of SimCC's norm_*.yaml
_C.LOSS.BETA = 10.0  # rtm_simcc: sharpens outputs and targets before their softmax
_C.LOSS.USE_DIFFERENT_JOINTS_WEIGHT = False  # the data set's weight for each joint

_C.DATASET = CN()
_C.DATASET.ROOT = ""
_C.DATASET.DATASET = "mpii"  # a key of lib.dataset.DATASETS, or the name of your own
_C.DATASET.TRAIN_SET = "train"
_C.DATASET.TEST_SET = "valid"
_C.DATASET.DATA_FORMAT = "jpg"  # jpg, png or zip (images/<set>.zip instead of a folder)
_C.DATASET.SELECT_DATA = False  # train only on people whose joints lie well in their box
_C.DATASET.FLIP = True  # mirror half of the training samples
_C.DATASET.SCALE_FACTOR = 0.25  # standard deviation and bound of the random scale
_C.DATASET.ROT_FACTOR = 30.0  # standard deviation of the random rotation in degrees, bound at twice
_C.DATASET.PROB_HALF_BODY = 0.0  # how often a crop shows only the upper or the lower body ...
_C.DATASET.NUM_JOINTS_HALF_BODY = 8  # ... of people with more visible joints than this
_C.DATASET.PROB_SHIFT = 0.0  # share of the training boxes that are moved, by up to a fifth
# Photometric augmentation: the share of training samples that get (lib/dataset/photometric.py)
_C.DATASET.PROB_COLOR = 0.0  # random exposure, contrast, gamma, white balance, saturation and hue
_C.DATASET.PROB_GRAY = 0.0  # no colour
_C.DATASET.PROB_BLUR = 0.0  # a Gaussian blur
_C.DATASET.PROB_NOISE = 0.0  # Gaussian noise
_C.DATASET.PROB_JPEG = 0.0  # JPEG artefacts
_C.DATASET.PROB_ERASE = 0.0  # up to three rectangles erased
_C.DATASET.COLOR_RGB = False  # feed RGB; False feeds BGR, as the published ResNets were trained
# A data set of your own, in COCO's layout. What is empty is found in the file, or by the names.
_C.DATASET.ANNOTATIONS = ""  # the file below ROOT; {split} is TRAIN_SET or TEST_SET
_C.DATASET.IMAGES = ""  # the folder of file_name below ROOT; '' is images/{split}
_C.DATASET.CATEGORIES = []  # names; empty: all that have the same joints
_C.DATASET.JOINT_NAMES = []  # in the order of the annotations
_C.DATASET.FLIP_PAIRS = []  # pairs that a mirror swaps; joints by name or number, as below
_C.DATASET.SIGMAS = []  # how precisely people place each joint, for OKS: see docs/own_data.md
_C.DATASET.LIMBS = []  # pairs to draw a line between
_C.DATASET.UPPER_BODY = []  # joints of the upper half, for PROB_HALF_BODY
_C.DATASET.JOINT_WEIGHTS = []  # for LOSS.USE_DIFFERENT_JOINTS_WEIGHT

_C.TRAIN = CN()
_C.TRAIN.LR = 0.001
_C.TRAIN.LR_SCHEDULE = "multistep"  # multistep or cosine
_C.TRAIN.LR_STEP = [90, 110]  # multistep: epochs (from 0) at whose start LR is multiplied ...
_C.TRAIN.LR_FACTOR = 0.1  # ... by this
_C.TRAIN.LR_MIN = 0.0  # cosine: reached at END_EPOCH
_C.TRAIN.WARMUP_ITERS = 0  # steps of linear warm-up, 0 for none ...
_C.TRAIN.WARMUP_FACTOR = 0.001  # ... beginning at this share of LR
_C.TRAIN.OPTIMIZER = "adam"  # adam (ignores WD, as published results did), adamw or sgd
_C.TRAIN.MOMENTUM = 0.9  # sgd
_C.TRAIN.WD = 0.0001  # weight decay of adamw and sgd
_C.TRAIN.NESTEROV = False  # sgd
_C.TRAIN.BEGIN_EPOCH = 0
_C.TRAIN.END_EPOCH = 140
_C.TRAIN.EVAL_INTERVAL = 1  # epochs between validations, the last always has one; 0: none at all
_C.TRAIN.RESUME = False  # go on from the output folder's checkpoint.pth, which must then exist
_C.TRAIN.CHECKPOINT = ""  # go on from this file, unless AUTO_RESUME finds checkpoint.pth
_C.TRAIN.BATCH_SIZE_PER_GPU = 32
_C.TRAIN.SHUFFLE = True
_C.TRAIN.AMP = False  # bfloat16 autocast, where the device has it in hardware

_C.TEST = CN()
_C.TEST.BATCH_SIZE_PER_GPU = 32
_C.TEST.FLIP_TEST = False  # average with the prediction for the mirrored crop
_C.TEST.POST_PROCESS = False  # move maxima between pixels ...
_C.TEST.REFINE = ""  # ... by quarter (toward the higher neighbour), dark or udp; '' as TARGET_TYPE
_C.TEST.BLUR_KERNEL = 0  # dark, udp: width of the blur before, odd; 0 follows from the sigma
_C.TEST.SHIFT_HEATMAP = False  # flip test: shift what came of the mirrored crop by one pixel
_C.TEST.USE_GT_BBOX = False  # annotated boxes; False takes the detector's in COCO_BBOX_FILE
_C.TEST.IMAGE_THRE = 0.1  # boxes with a lower detection score are left out
_C.TEST.SOFT_NMS = False  # lower the score of overlapping poses instead of dropping them
_C.TEST.OKS_THRE = 0.5  # poses more alike than this (OKS) are one person
_C.TEST.IN_VIS_THRE = 0.0  # joints with a lower score do not count in a person's score
_C.TEST.COCO_BBOX_FILE = ""  # a detector's boxes: a list of image_id, category_id, bbox, score
_C.TEST.MODEL_FILE = ""  # weights to test; '' is model_best.pth, else final_state.pth of the output

_C.DEBUG = CN()
_C.DEBUG.DEBUG = False  # write the pictures below, one of each every PRINT_FREQ steps
_C.DEBUG.SAVE_BATCH_IMAGES_GT = False
_C.DEBUG.SAVE_BATCH_IMAGES_PRED = False
_C.DEBUG.SAVE_HEATMAPS_GT = False
_C.DEBUG.SAVE_HEATMAPS_PRED = False

# Keys of the original that nothing reads (most of them not even there): accepted, so that its YAML
# files run unchanged.
IGNORED = frozenset(
    {
        "RANK",
        "MODEL.TAG_PER_JOINT",
        "DATASET.HYBRID_JOINTS_TYPE",
        "TRAIN.GAMMA1",
        "TRAIN.GAMMA2",
        "TEST.NMS_THRE",
        "TEST.BBOX_THRE",
    }
)


def default_config() -> CN:
    """A fresh, mutable copy of the defaults."""
    return _C.clone()
