"""The keys of ``MODEL.EXTRA`` for each network, with their defaults.

If the published code of a network has the same setting, the key has the published name.
"""

from yacs.config import CfgNode as CN

_POSE_RESNET = CN()
_POSE_RESNET.NUM_LAYERS = 50  # 18, 34, 50, 101 or 152
_POSE_RESNET.DECONV_WITH_BIAS = False
_POSE_RESNET.NUM_DECONV_LAYERS = 3
_POSE_RESNET.NUM_DECONV_FILTERS = [256, 256, 256]
_POSE_RESNET.NUM_DECONV_KERNELS = [4, 4, 4]
_POSE_RESNET.FINAL_CONV_KERNEL = 1


def _stage(modules: int, channels: list[int], block: str = "BASIC") -> CN:
    stage = CN()
    stage.NUM_MODULES = modules
    stage.NUM_BRANCHES = len(channels)
    stage.BLOCK = block  # BASIC or BOTTLENECK
    stage.NUM_BLOCKS = [4] * len(channels)  # per branch
    stage.NUM_CHANNELS = channels  # per branch; a bottleneck outputs four times as many
    stage.FUSE_METHOD = "SUM"
    return stage


_POSE_HRNET = CN()
_POSE_HRNET.PRETRAINED_LAYERS = ["*"]  # modules to load from MODEL.PRETRAINED; '*' loads all
_POSE_HRNET.FINAL_CONV_KERNEL = 1
_POSE_HRNET.STEM_INPLANES = 64  # channels of the stem; the name is from HigherHRNet's code
# STAGE1 is ``layer1`` of the network, which the published pose code hard-codes. The key is named as
# in HRNet's classification code.
_POSE_HRNET.STAGE1 = _stage(1, [64], "BOTTLENECK")
_POSE_HRNET.STAGE2 = _stage(1, [32, 64])
_POSE_HRNET.STAGE3 = _stage(4, [32, 64, 128])
_POSE_HRNET.STAGE4 = _stage(3, [32, 64, 128, 256])
# MODEL.HEAD higher: the deconvolutions and the blocks after them, with HigherHRNet's names.
_POSE_HRNET.DECONV = CN()
_POSE_HRNET.DECONV.NUM_DECONVS = 1
_POSE_HRNET.DECONV.NUM_CHANNELS = [32]
_POSE_HRNET.DECONV.KERNEL_SIZE = [4]
_POSE_HRNET.DECONV.NUM_BASIC_BLOCKS = 4
_POSE_HRNET.DECONV.CAT_OUTPUT = [True]  # append the previous output to the deconvolution's input


def _lightweight() -> CN:
    """Return the settings that Lite-HRNet-18, Dite-HRNet-18 and WideHRNet-18 share.

    For the -30 variants, NUM_MODULES is [3, 8, 3].
    """
    extra = CN()
    extra.NUM_MODULES = [2, 4, 2]  # per stage; the stages have two, three and four branches
    extra.NUM_BLOCKS = 2  # per module
    extra.NUM_CHANNELS = [40, 80, 160, 320]  # per branch
    return extra


_LITE_HRNET = _lightweight()
_LITE_HRNET.MODULE_TYPE = "LITE"  # or NAIVE, with shuffle units instead of channel weighting
_LITE_HRNET.REDUCE_RATIO = 8  # LITE: channel reduction of the cross-resolution weighting

_WIDE_HRNET = _lightweight()
_WIDE_HRNET.EXPAND_RATIO = 4  # expansion of the inverted residuals
_WIDE_HRNET.WITH_SE = True  # squeeze-and-excitation in the inverted residuals
_WIDE_HRNET.SE_RATIO = 4  # channel reduction of the squeeze-and-excitation


def _add_encoder(extra: CN, channels: int, hidden: int, heads: int) -> CN:
    """Add the keys of TransPose's transformer encoder to those of its backbone."""
    extra.DIM_MODEL = channels
    extra.DIM_FEEDFORWARD = hidden
    extra.N_HEAD = heads
    extra.ENCODER_LAYERS = 4
    extra.POS_EMBEDDING = "sine"  # sine, learnable or none
    return extra


# Only the first two stages of the ResNet are used; the encoder follows them.
_TRANSPOSE_R = _add_encoder(_POSE_RESNET.clone(), 256, 1024, 8)
_TRANSPOSE_R.NUM_DECONV_LAYERS = 1
_TRANSPOSE_R.NUM_DECONV_FILTERS = [256]
_TRANSPOSE_R.NUM_DECONV_KERNELS = [4]

_TRANSPOSE_H = _add_encoder(CN(), 64, 128, 1)
_TRANSPOSE_H.PRETRAINED_LAYERS = ["*"]
_TRANSPOSE_H.FINAL_CONV_KERNEL = 1
_TRANSPOSE_H.STAGE1 = _stage(1, [64], "BOTTLENECK")
_TRANSPOSE_H.STAGE2 = _stage(1, [32, 64])
_TRANSPOSE_H.STAGE3 = _stage(4, [32, 64, 128])

_HRFORMER = CN()  # HRFormer-S; HRFormer-B differs where noted
_HRFORMER.NUM_MODULES = [1, 4, 2]  # per stage; the stages have two, three and four branches
_HRFORMER.NUM_BLOCKS = 2  # per branch of a module
_HRFORMER.NUM_CHANNELS = [32, 64, 128, 256]  # per branch; B: [78, 156, 312, 624]
_HRFORMER.NUM_HEADS = [1, 2, 4, 8]  # attention heads per branch; B: [2, 4, 8, 16]
_HRFORMER.WINDOW_SIZE = 7
_HRFORMER.MLP_RATIO = 4
_HRFORMER.DROP_PATH = 0.1  # rate of the last block, rising linearly from 0; B: 0.2
_HRFORMER.RELATIVE_POSITION_BIAS = False  # True in mmpose, False in the paper's code
_HRFORMER.FINAL_CONV_KERNEL = 1

EXTRA = {
    "hrformer": _HRFORMER,
    "transpose_h": _TRANSPOSE_H,
    "transpose_r": _TRANSPOSE_R,
    "pose_resnet": _POSE_RESNET,
    "pose_hrnet": _POSE_HRNET,
    "lite_hrnet": _LITE_HRNET,
    "dite_hrnet": _lightweight(),
    "wide_hrnet": _WIDE_HRNET,
}
