# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""Cython versions of the four functions in ``numpy_nms``, with the same arguments.

Only typed memoryviews are used, so the build needs no NumPy headers and works with any version of
NumPy. The callers in ``lib.nms`` validate all arguments; nothing is checked here.
"""

from libc.math cimport INFINITY, exp
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport calloc, free

INTERFACE = 1  # must equal backend.INTERFACE; increase both when arguments change


def box_keep(const float[:, ::1] boxes, float threshold, uint8_t[::1] keep):
    """Set ``keep`` (n,) to 1 for boxes (4, n) that are kept; the highest score must come first."""
    cdef Py_ssize_t n = boxes.shape[1], i
    # n + 1, because calloc(0) may return NULL.
    cdef float *areas = <float *>calloc(n + 1, sizeof(float))
    cdef int32_t *suppressed = <int32_t *>calloc(n + 1, sizeof(int32_t))
    try:
        if areas == NULL or suppressed == NULL:
            raise MemoryError(f"not enough memory for NMS of {n} boxes")
        with nogil:
            for i in range(n):
                areas[i] = (boxes[2, i] - boxes[0, i] + 1) * (boxes[3, i] - boxes[1, i] + 1)
            for i in range(n):
                keep[i] = not suppressed[i]
                if keep[i]:
                    suppress_boxes(&boxes[0, 0], areas, n, i, threshold, suppressed)
    finally:
        free(areas)
        free(suppressed)


cdef void suppress_boxes(
    const float *boxes, const float *areas, Py_ssize_t n, Py_ssize_t i, float threshold,
    int32_t *suppressed
) noexcept nogil:
    """Set ``suppressed`` for later boxes that overlap box ``i`` by more than ``threshold``.

    The C compiler can vectorise this loop, because it has no branches and ``suppressed`` is as wide
    as a float.
    """
    cdef const float *left = boxes
    cdef const float *top = boxes + n
    cdef const float *right = boxes + 2 * n
    cdef const float *bottom = boxes + 3 * n
    cdef float x1 = left[i], y1 = top[i], x2 = right[i], y2 = bottom[i], area = areas[i]
    cdef float width, height, inter
    cdef Py_ssize_t j
    for j in range(i + 1, n):
        width = (x2 if x2 < right[j] else right[j]) - (x1 if x1 > left[j] else left[j]) + 1
        height = (y2 if y2 < bottom[j] else bottom[j]) - (y1 if y1 > top[j] else top[j]) + 1
        inter = (width if width > 0 else 0) * (height if height > 0 else 0)
        suppressed[j] |= inter / (area + areas[j] - inter) > threshold


# Parameters of OKS, which are the same for all pairs of people.
cdef struct OksParams:
    const double *variances  # (joints,)
    Py_ssize_t joints
    bint masked  # use only joints whose score in the other person is above `min_score`
    double min_score


cdef OksParams make_params(const double[::1] variances, min_score) except *:
    cdef OksParams params
    params.variances = &variances[0]
    params.joints = variances.shape[0]
    params.masked = min_score is not None
    params.min_score = min_score if params.masked else 0.0
    return params


cdef double oks(
    const double *one, const double *other, double mean_area, const OksParams *params,
    double threshold
) noexcept nogil:
    """Return the OKS, or 0 as soon as it is certain that the OKS is not above ``threshold``.

    A joint adds at most 1, which gives an upper bound of the OKS after each joint. Most pairs of
    people are far apart and need only a few joints. With a negative threshold, the OKS is always
    returned.
    """
    cdef double total = 0, e, dx, dy
    cdef Py_ssize_t k, counted = 0, left
    for k in range(params.joints):
        if params.masked and not other[3 * k + 2] > params.min_score:
            continue
        dx = other[3 * k] - one[3 * k]
        dy = other[3 * k + 1] - one[3 * k + 1]
        e = (dx * dx + dy * dy) / params.variances[k] / mean_area / 2
        total += exp(-e)
        counted += 1
        left = params.joints - k - 1
        # The factor allows for rounding, so that stopping early never changes the result.
        if total + left < threshold * (counted + left) * 0.999999:
            return 0.0
    return total / counted if counted else 0.0


cdef inline double mean(double area, double other) noexcept nogil:
    # np.spacing(1), as in numpy_nms: avoids a division by zero.
    return (area + other) / 2 + 2.220446049250313e-16


def oks_row(const double[:, ::1] person, const double[:, :, ::1] others, double area,
            const double[::1] areas, const double[::1] variances, min_score, double[::1] row):
    """Write the OKS of ``person`` (K, 3) with each of ``others`` (n, K, 3) into ``row`` (n,)."""
    cdef OksParams params = make_params(variances, min_score)
    cdef Py_ssize_t j
    with nogil:
        for j in range(others.shape[0]):
            row[j] = oks(&person[0, 0], &others[j, 0, 0], mean(area, areas[j]), &params, -1.0)


def oks_groups(const double[:, :, ::1] keypoints, const double[::1] areas,
               const double[::1] variances, min_score, const int64_t[::1] order,
               const int64_t[::1] starts, double threshold, int64_t[::1] kept):
    """Run OKS-NMS in each group, write the kept rows to ``kept`` and return their number.

    The remaining rows of a group are compacted in ``kept`` itself, so no other memory is needed.
    """
    cdef OksParams params = make_params(variances, min_score)
    cdef Py_ssize_t g, i, j, remaining, write, base = 0
    cdef int64_t one, other
    with nogil:
        for g in range(starts.shape[0] - 1):
            remaining = starts[g + 1] - starts[g]
            for i in range(remaining):
                kept[base + i] = order[starts[g] + i]
            i = 0
            while i < remaining:
                one = kept[base + i]
                i += 1
                write = i
                for j in range(i, remaining):
                    other = kept[base + j]
                    if not oks(&keypoints[one, 0, 0], &keypoints[other, 0, 0],
                               mean(areas[one], areas[other]), &params, threshold) > threshold:
                        kept[base + write] = other
                        write += 1
                remaining = write
            base += remaining
    return base


def soft_oks_groups(const double[:, :, ::1] keypoints, double[::1] scores,
                    const double[::1] areas, const double[::1] variances, min_score,
                    const int64_t[::1] order, const int64_t[::1] starts, double threshold,
                    Py_ssize_t limit, int64_t[::1] kept):
    """Run soft OKS-NMS, keeping at most ``limit`` people per group; modifies ``scores``."""
    cdef OksParams params = make_params(variances, min_score)
    cdef Py_ssize_t g, i, j, n, best, base = 0
    cdef int64_t one, other
    cdef double overlap, score
    with nogil:
        for g in range(starts.shape[0] - 1):
            n = starts[g + 1] - starts[g]
            for i in range(n):
                kept[base + i] = order[starts[g] + i]
            for i in range(min(n, limit)):
                best = base + i
                for j in range(base + i + 1, base + n):
                    score = scores[kept[j]]
                    if score > scores[kept[best]] or (
                        score == scores[kept[best]] and kept[j] > kept[best]
                    ):
                        best = j
                one = kept[best]
                kept[best] = kept[base + i]
                kept[base + i] = one
                for j in range(base + i + 1, base + n):
                    other = kept[j]
                    overlap = oks(&keypoints[one, 0, 0], &keypoints[other, 0, 0],
                                  mean(areas[one], areas[other]), &params, -1.0)
                    if overlap == overlap:  # not NaN
                        score = scores[other] * exp(-overlap * overlap / threshold)
                        scores[other] = score if score == score else -INFINITY
            base += min(n, limit)
    return base
